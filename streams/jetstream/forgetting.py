"""Removes the messages of forgotten plans, and notes in the stream up to where some are missing.

The note stands in the stream's metadata, so that every instance and every consumer can tell what
was forgotten from what was lost. It is raised before messages are removed. Removing needs a user of
its own: the service itself may not purge.
"""

import asyncio
from collections.abc import Mapping

import msgspec

from streams.jetstream.access import Credentials
from streams.jetstream.bounds import Ask
from streams.jetstream.connection import Connection
from streams.jetstream.topology import ApiError, StreamAnswer, ask_about_stream
from streams.json_values import UNREADABLE
from streams.log import LogUnavailable
from streams.subjects import PLANS, subject_of, tasks_of

NOTE = "holdfast.forgotten"
PURGE_TIMEOUT_S = 10.0
AT_ONCE = 4  # purges under way: other questions wait behind them at the server
NO_PLANS_SUBJECT = f"{PLANS}.~"


class PurgeAnswer(msgspec.Struct, frozen=True):
    """What a purge did, or a refusal."""

    success: bool = False
    purged: int = 0
    error: ApiError | None = None


def forgotten_in(metadata: Mapping[str, str]) -> int:
    """Up to which sequence facts of forgotten plans may be missing; 0: none is."""
    noted = metadata.get(NOTE, "")
    return int(noted) if noted.isdigit() else 0


async def note_forgotten(ask: Ask, stream: str, up_to: int) -> None:
    """Raise the stream's note to ``up_to``, unless it stands there. Raises LogUnavailable."""
    found = await _ask(ask, f"STREAM.INFO.{stream}", b"")
    config = found.config or {}
    metadata: dict[str, str] = config.get("metadata") or {}
    if forgotten_in(metadata) >= up_to:
        return
    wanted = {**config, "metadata": {**metadata, NOTE: str(up_to)}}
    changed = await _ask(ask, f"STREAM.UPDATE.{stream}", msgspec.json.encode(wanted))
    if forgotten_in((changed.config or {}).get("metadata") or {}) < up_to:
        raise LogUnavailable(f"stream {stream} did not take the note of what is forgotten")


async def _ask(ask: Ask, question: str, body: bytes) -> StreamAnswer:
    try:
        answer = await ask_about_stream(ask, question, body)
    except UNREADABLE as error:
        raise LogUnavailable(f"the answer to {question} cannot be read: {error}") from error
    if answer.error is not None or not answer.config:
        said = answer.error.description if answer.error else "no configuration in the answer"
        raise LogUnavailable(f"{question}: {said}")
    return answer


class Purger:
    """A connection of a user that may purge the log. Everything raises LogUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._question = connection.names.api(f"STREAM.PURGE.{connection.names.plans_stream}")

    @classmethod
    async def open(cls, url: str, *, timeout_s: float, access: Credentials) -> "Purger":
        """Connect, and prove that the user may purge: by a purge that matches nothing."""
        connection = await Connection.open(
            url, name="holdfast retention", timeout_s=timeout_s, access=access
        )
        purger = cls(connection)
        try:
            await purger._purge(NO_PLANS_SUBJECT, 1)
        except BaseException:
            await connection.close()
            raise
        return purger

    async def remove(self, below: Mapping[str, int], *, tasks: bool = True) -> int:
        """Remove what stands of plans, by id, below a sequence; answers how many messages.

        Without ``tasks`` only what stands on the plans' own subjects.
        """
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(plan_id: str, sequence: int) -> int:
            async with gate:
                # The plan's own subject first: facts of tasks without their plan are ignored,
                # while a plan without the facts of its tasks would look unfinished.
                own = await self._purge(subject_of(plan_id), sequence)
                return own + (await self._purge(tasks_of(plan_id), sequence) if tasks else 0)

        return sum(await asyncio.gather(*(one(*each) for each in below.items())))

    async def remove_beginning(self, below: int) -> int:
        """Remove everything that stands below a sequence; answers how many messages it was.

        The server drops whole blocks of its files. On a log of 5 million messages that took 0.2 to
        0.4 s for 1,000 messages and for 400,000, and nothing could be written meanwhile.
        """
        if below <= 1:
            return 0  # without a sequence, and a filter, the server would remove everything
        return await self._ask({"seq": below}, f"all below sequence {below}")

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def _purge(self, subject: str, below: int) -> int:
        """Remove what ``subject`` (a filter) matches below a sequence; answers how many."""
        filtered = self._connection.names.outside(subject)
        return await self._ask({"filter": filtered, "seq": below}, subject)

    async def _ask(self, question: Mapping[str, str | int], what: str) -> int:
        body = msgspec.json.encode(question)
        reply = await self._connection.request(self._question, body, timeout_s=PURGE_TIMEOUT_S)
        try:
            answer = msgspec.json.decode(reply.payload, type=PurgeAnswer)
        except UNREADABLE as error:
            raise LogUnavailable(f"the answer to a purge cannot be read: {error}") from error
        if answer.error is not None or not answer.success:
            said = answer.error.description if answer.error else "no success in the answer"
            raise LogUnavailable(f"the purge of {what} failed: {said}")
        return answer.purged
