"""Sends clients that are behind what they lack, from the ring or the log, until nothing is left.

The last look into the ring and the joining of the channel are one step without an await, so no
event can fall between what was replayed and what is pushed, and none can come twice.
"""

import asyncio
from collections.abc import Callable

from projections.feed.channels import Channels
from projections.feed.client import Client, Gone
from projections.feed.cuts import Cut
from projections.feed.entry import FeedEntry
from projections.feed.limits import FeedLimits
from projections.feed.meter import Meter
from projections.feed.pace import Pace
from projections.feed.replay import Pages
from projections.feed.ring import Ring
from streams.log import LogReset, LogUnavailable


class Forwarder:
    """Serves the clients of one feed that are not in a channel, each by a task of its own.

    ``failed(client, reason)`` is called for a client that is gone or takes no bytes for
    ``FeedLimits.slow_s``.
    """

    def __init__(
        self,
        ring: Ring,
        pages: Pages,
        channels: Channels,
        meter: Meter,
        failed: Callable[[Client, str], None],
        limits: FeedLimits,
    ) -> None:
        self._limits = limits
        self._ring = ring
        self._pages = pages
        self._channels = channels
        self._meter = meter
        self._failed = failed
        self._pace = Pace()
        self._tasks: dict[Client, asyncio.Task[None]] = {}
        self._waiting: dict[asyncio.Future[None], int] = {}  # and the sequence waited for

    def start(self, client: Client) -> None:
        """Bring ``client`` forward until it is in its channel or has ended."""
        task = asyncio.create_task(self._bring(client), name="sse forward")
        self._tasks[client] = task
        task.add_done_callback(lambda task: self._ended(client, task))

    def stop(self, client: Client) -> None:
        """Stop sending to ``client``, whatever it has not received yet."""
        task = self._tasks.pop(client, None)
        if task is not None:
            task.cancel()

    def published(self) -> None:
        """The ring has moved: wake those that are ahead of it."""
        position = self._ring.position
        for reached, sequence in self._waiting.items():
            if sequence <= position and not reached.done():
                reached.set_result(None)

    def _ended(self, client: Client, task: asyncio.Task[None]) -> None:
        if self._tasks.get(client) is task:
            del self._tasks[client]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(client, "error")
            raise error  # to the loop's handler, which logs it with its stack

    async def _bring(self, client: Client) -> None:
        try:
            while client.open:
                try:
                    async with asyncio.timeout(self._limits.slow_s):
                        await client.sink.drained()
                except TimeoutError:
                    self._failed(client, "slow_consumer")
                    return
                await self._pace.step()
                if await self._step(client):
                    return
        except Gone:
            self._failed(client, "disconnected")

    async def _step(self, client: Client) -> bool:
        """One piece of the way; True when ``client`` has arrived."""
        ring = self._ring
        if ring.position >= client.head and ring.covers(client.cursor):
            joins = self._from_ring(client)
        else:
            joins = False
            if client.cursor < max(client.head, ring.position):
                await self._from_log(client)
            elif not client.is_over:
                client.tell_caught_up()
                await self._ring_reaches(client.cursor)
        client.tell_caught_up()
        if client.is_over:
            client.end("plan_finished")
            return True
        if joins:
            self._channels.join(client)
        return joins

    def _from_ring(self, client: Client) -> bool:
        """Write a piece of the ring; True when that was all and the client took it."""
        part = self._ring.after(client.cursor, client.interest, self._limits, _skim_of(client))
        return self._write(client, part) and client.cursor == self._ring.position

    async def _from_log(self, client: Client) -> None:
        """Write a piece of the log; while the log does not answer, wait for it."""
        reach = max(client.head, self._ring.position)
        try:
            page = await self._pages.after(client.cursor, client.interest.plan_id, reach)
        except (LogUnavailable, LogReset):
            await asyncio.sleep(self._limits.log_retry_s)  # pings go on; the projector reports it
            return
        await self._pace.step()
        if page.last <= client.cursor:
            return  # read for another client, before this one needed to know more
        if (state := page.lost_after(client.cursor)) is not None:
            client.skip_lost(state)
        elif page.state is not None and not client.interest.ends:
            client.warn_of_forgotten(client.cursor, page.state)
        part = page.after(client.cursor, client.interest, self._limits, _skim_of(client))
        self._write(client, part)

    def _write(self, client: Client, part: Cut) -> bool:
        self._meter.count("agent.sse.push.attempt.total", len(part.texts))
        return client.write(part.texts, part.reached)

    async def _ring_reaches(self, sequence: int) -> None:
        """Wait for the first news that bring the ring up to ``sequence``."""
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[reached] = sequence
        try:
            await reached
        finally:
            del self._waiting[reached]


def _skim_of(client: Client) -> Callable[[FeedEntry], None] | None:
    return client.skim if client.interest.ends else None
