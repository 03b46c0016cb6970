"""A tail on the log: every fact above a position, in order, in batches, across every disturbance.

It is a checked pull consumer (`streams.jetstream.consumer`). Every disturbance (a consumer that
broke, silence where a heartbeat was due, a new connection) has one cure: a new consumer from the
last position + 1.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

import msgspec
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from streams.jetstream.connection import Connection
from streams.jetstream.consumer import HEARTBEAT_S, Broken, Consumer
from streams.log import BadFact, Fact, LogReset, LogUnavailable

PULLS = 3
SILENCE_S = 2.5 * HEARTBEAT_S  # after which the consumer counts as gone
INACTIVE_S = 60  # after which the server forgets a consumer that nobody pulls from
SLICE = 500  # facts yielded at a time: some 5 ms of decoding, so the loop stays responsive


class StreamPosition(msgspec.Struct, frozen=True, gc=False):
    """Which log this is (see LogState.epoch) and its last sequence."""

    epoch: str
    head: int


class Follower:
    """One tail on stream ``stream`` above ``after``; iterate `batches` once.

    ``position_of`` asks the log who it is: a log that was made anew raises LogReset. ``on_restart``
    hears why a consumer had to be replaced.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        after: int,
        *,
        position_of: Callable[[], Awaitable[StreamPosition]],
        on_restart: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._position = after
        self._position_of = position_of
        self._on_restart = on_restart
        self._epoch: str | None = None
        self._consumer: Consumer | None = None

    async def batches(self) -> AsyncGenerator[list[Fact | BadFact], None]:
        """Yield facts for ever. Raises LogReset only."""
        unwatch = self._connection.watch(self._interrupt)
        try:
            while True:
                consumer = await self._open()
                try:
                    while True:
                        await consumer.until_news(SILENCE_S)
                        if facts := consumer.take(SLICE):
                            self._position = consumer.position
                            yield facts
                            await asyncio.sleep(0)
                except Broken as reason:
                    self._on_restart(str(reason))
                finally:
                    await consumer.shut()
        finally:
            unwatch()

    async def _open(self) -> Consumer:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(LogUnavailable),
            wait=wait_random_exponential(multiplier=0.05, max=1),
        ):
            with attempt:
                try:
                    return await self._open_once()
                except LogUnavailable as error:
                    self._on_restart(str(error))
                    raise
        raise AssertionError("retried for ever")

    async def _open_once(self) -> Consumer:
        await self._check_log()
        consumer = self._consumer = Consumer(
            self._connection,
            self._stream,
            self._position,
            pulls=PULLS,
            inactive_s=INACTIVE_S,
        )
        try:
            await consumer.open()
        except BaseException:
            await consumer.shut()
            raise
        return consumer

    async def _check_log(self) -> None:
        found = await self._position_of()
        if self._epoch is None:
            self._epoch = found.epoch
        if found.epoch != self._epoch:
            raise LogReset(f"stream {self._stream} was made anew")
        if found.head < self._position:
            raise LogReset(
                f"stream {self._stream} ends at {found.head}, before {self._position}: "
                "it is not the log that was followed"
            )

    def _interrupt(self) -> None:
        # Old pull requests died with the old socket; a new one cannot tell what was missed.
        if self._connection.connected and self._consumer is not None:
            self._consumer.break_off("reconnected")
