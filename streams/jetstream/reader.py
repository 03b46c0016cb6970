"""Reading a part of the log: the messages of one subject filter, page by page, by direct get.

A direct get costs no consumer, and any replica may answer it, also one that lags. What decides
something asks the leader instead (`leader_first`, `leader_last`); and since a leader that is cut
off says "no message" of what it has missed, that answer counts only once a leader has proven its
quorum after it.
"""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Generator, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from streams.codec import MESSAGE_ID, decode, split_headers
from streams.jetstream.connection import Connection
from streams.jetstream.direct_get import DirectGetPage, DirectGets
from streams.jetstream.leadership import PATIENCE, Patience
from streams.jetstream.messages import Reply
from streams.jetstream.names import Names
from streams.jetstream.read_ahead import Walks
from streams.jetstream.topology import ApiError
from streams.json_values import UNREADABLE
from streams.log import BadFact, Fact, LogMessage, LogUnavailable
from streams.steps import in_turns

PAGE_MESSAGES = 1_000
PAGE_BYTES = 8 * 1024 * 1024
READ_TIMEOUT_S = 5.0
LAST_SUBJECTS = 1_000  # the server answers at most 1,024 at a time
NO_MESSAGE = 10037
SCAN_WAITS_S = (0.02, 0.1, 0.5)  # for a replica that lags
WORTH_A_WALK = 100  # messages; a client of smaller pages seldom reads on

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class StoredMessage(msgspec.Struct, frozen=True):
    """A message as the leader shows it; headers are base64."""

    seq: int
    hdrs: str = ""
    subject: str = ""
    data: str = ""
    time: str = ""

    def fact(self, names: Names) -> Fact | BadFact:
        """The fact in it."""
        return decode(
            self.seq,
            seconds_of(self.time.encode()),
            names.inside(self.subject),
            base64.b64decode(self.hdrs),
            base64.b64decode(self.data),
        )


class StoredAnswer(msgspec.Struct, frozen=True):
    """The leader's answer to one question for a message."""

    message: StoredMessage | None = None
    error: ApiError | None = None


Prove = Callable[[], Awaitable[bool]]
T = TypeVar("T")
M = TypeVar("M", Fact | BadFact, LogMessage)


class Reader:
    """Direct gets on one stream. Everything here raises LogUnavailable and nothing else.

    ``prove`` returns when the log's leader has just proven a quorum, and raises otherwise; False
    says that there is no other replica, so that no answer is stale.
    """

    def __init__(
        self, connection: Connection, stream: str, prove: Prove, patience: Patience = PATIENCE
    ) -> None:
        self._connection = connection
        self._prove = prove
        self.walks = Walks(connection, stream, patience)
        self._names = connection.names
        self._direct = DirectGets(connection, stream, patience)
        self._leader = self._names.api(f"STREAM.MSG.GET.{stream}")

    async def facts(self, subject: str, count: int) -> list[Fact | BadFact]:
        """The first ``count`` facts on ``subject`` (a filter); fewer where a replica lags."""
        facts: list[Fact | BadFact] = []
        start, more = 1, True
        while more and len(facts) < count:
            page = await self.page_from(subject, start, min(count - len(facts), PAGE_MESSAGES))
            facts += await self.decoded(page.replies, fact_of)
            more = page.more and bool(page.replies)
            start = facts[-1].sequence + 1 if facts else start
        return facts

    async def last_of(self, subjects: Sequence[str]) -> dict[str, int]:
        """The last sequence of each literal subject that has a message, as far as a page goes."""
        found: dict[str, int] = {}
        for start in range(0, len(subjects), LAST_SUBJECTS):
            part = [self._names.outside(each) for each in subjects[start:][:LAST_SUBJECTS]]
            page = await self._direct.page(
                {"multi_last": part, "batch": len(part), "max_bytes": PAGE_BYTES}
            )
            for reply in page.replies:
                headers = split_headers(reply.headers)
                subject = self._names.inside(headers[b"Nats-Subject"].decode())
                found[subject] = int(headers[b"Nats-Sequence"])
        return found

    async def leader_first_after(
        self, subject: str, sequence: int, timeout_s: float = READ_TIMEOUT_S
    ) -> tuple[int, str] | None:
        """(sequence, event id) of the first message on ``subject`` above ``sequence``, or None.

        None is not proven: a leader that is cut off does not know what the others have.
        """
        message = await self._leader_message(
            {"seq": sequence + 1, "next_by_subj": self._names.outside(subject)}, timeout_s
        )
        if message is None:
            return None
        headers = split_headers(base64.b64decode(message.hdrs))
        return message.seq, headers.get(MESSAGE_ID, b"").decode("utf-8", "replace")

    async def proven_first_after(self, subject: str, sequence: int) -> int | None:
        """The sequence of the first message on ``subject`` above ``sequence``; None is proven."""
        found = await self._proven(lambda: self.leader_first_after(subject, sequence))
        return None if found is None else found[0]

    async def leader_first(self, subject: str) -> Fact | BadFact | None:
        """The first fact on ``subject``, or None if it is proven that there is none."""
        return await self._proven(
            lambda: self._leader_fact({"seq": 1, "next_by_subj": self._names.outside(subject)})
        )

    async def leader_last(self, subject: str) -> Fact | BadFact | None:
        """The last fact on ``subject``, or None if it is proven that there is none."""
        return await self._proven(
            lambda: self._leader_fact({"last_by_subj": self._names.outside(subject)})
        )

    async def _proven(self, ask: Callable[[], Awaitable[T | None]]) -> T | None:
        """What ``ask`` finds; if that is nothing, what it finds once a quorum is proven."""
        found = await ask()
        if found is None and await self._prove():
            found = await ask()
        return found

    async def _leader_fact(self, question: dict[str, object]) -> Fact | BadFact | None:
        message = await self._leader_message(question, READ_TIMEOUT_S)
        return None if message is None else message.fact(self._names)

    async def _leader_message(
        self, question: dict[str, object], timeout_s: float
    ) -> StoredMessage | None:
        body = msgspec.json.encode(question)
        reply = await self._connection.request(self._leader, body, timeout_s=timeout_s)
        try:
            answer = msgspec.json.decode(reply.payload, type=StoredAnswer)
        except UNREADABLE as error:
            raise LogUnavailable(f"the log's answer cannot be read: {error}") from error
        if answer.message is not None:
            return answer.message
        if answer.error is not None and answer.error.err_code == NO_MESSAGE:
            return None
        raise LogUnavailable(f"the log cannot be read: {answer.error}")

    async def scan(self, subject: str, after: int, limit: int) -> list[Fact | BadFact]:
        """The next facts above ``after`` on ``subject``, which all subjects of the stream match.

        Empty only if the leader has none, since a replica may lag. A client that goes on where a
        full page ended is served by a walk, twice as fast.
        """
        if facts := await self.walks.take([subject], after, limit):
            return facts
        facts = await self._next(subject, after, limit, fact_of)
        if len(facts) == limit:
            self.walk_on([subject], facts)
        return facts

    def walk_on(self, subjects: Sequence[str], facts: Sequence[Fact | BadFact]) -> None:
        """Let a consumer fetch what follows a full page, if that is worth one."""
        if len(facts) >= WORTH_A_WALK:
            self.walks.begin(subjects, facts[-1].sequence)

    async def stored(self, subject: str, after: int, limit: int) -> list[LogMessage]:
        """`scan`, as the messages are stored."""
        return await self._next(subject, after, limit, message_of)

    async def _next(
        self, subject: str, after: int, limit: int, of: Callable[[Reply, Names], M]
    ) -> list[M]:
        for wait_s in SCAN_WAITS_S:
            page = await self.page_from(subject, after + 1, limit)
            if page.replies or not await self.leader_has([subject], after):
                return await self.decoded(page.replies, of)
            await asyncio.sleep(wait_s)
        raise LogUnavailable(f"the replicas that answer do not get beyond sequence {after}")

    async def messages(self, subject: str, start: int, limit: int) -> list[Reply]:
        """The first raw messages on ``subject`` (a filter) from ``start`` on; none if none is."""
        replies = (await self.page_from(subject, start, limit)).replies
        if not replies and await self.leader_has([subject], start - 1):
            raise LogUnavailable(f"the replica that answers does not reach sequence {start}")
        return replies

    async def page_since(self, subject: str, started: str, limit: int) -> list[Reply]:
        """The first raw messages on ``subject`` (a filter) from a time (RFC 3339) on."""
        question = {
            "start_time": started,
            "next_by_subj": self._names.outside(subject),
            "batch": limit,
        }
        return (await self._direct.page({**question, "max_bytes": PAGE_BYTES})).replies

    async def decoded(self, replies: Sequence[Reply], of: Callable[[Reply, Names], M]) -> list[M]:
        """What ``of`` makes of each of ``replies``, in turns of the loop."""

        def steps() -> Generator[None, None, list[M]]:
            found: list[M] = []
            for reply in replies:
                found.append(of(reply, self._names))
                yield
            return found

        return await in_turns(steps())

    async def close(self) -> None:
        """End the read-ahead."""
        await self.walks.close()

    async def leader_has(self, subjects: Sequence[str], after: int) -> bool:
        """Whether the leader has a message above ``after`` on one of them; False is proven."""

        async def any_after() -> bool | None:
            for subject in subjects:
                if await self.leader_first_after(subject, after) is not None:
                    return True
            return None

        return bool(await self._proven(any_after))

    async def page_from(self, subject: str, start: int, limit: int) -> DirectGetPage:
        """Up to ``limit`` messages on ``subject`` (a filter) from ``start`` on, and of 8 MiB."""
        return await self._direct.page(
            {
                "seq": start,
                "next_by_subj": self._names.outside(subject),
                "batch": limit,
                "max_bytes": PAGE_BYTES,
            }
        )


def fact_of(reply: Reply, names: Names) -> Fact | BadFact:
    """The fact in one direct-get answer."""
    return decode(*_place_of(reply, names), reply.headers, reply.payload)


def message_of(reply: Reply, names: Names) -> LogMessage:
    """The message in one direct-get answer, as it is stored."""
    return LogMessage(*_place_of(reply, names), reply.headers, reply.payload)


def _place_of(reply: Reply, names: Names) -> tuple[int, float, str]:
    """Sequence, time and subject of the message in an answer."""
    headers = split_headers(reply.headers)
    return (
        int(headers[b"Nats-Sequence"]),
        seconds_of(headers[b"Nats-Time-Stamp"]),
        names.inside(headers[b"Nats-Subject"].decode("utf-8", "replace")),
    )


def seconds_of(stamp: bytes) -> float:
    """``2026-01-02T03:04:05.123456789Z`` in seconds since the epoch, as the follower computes it.

    The nanoseconds have to survive: the same message must have the same time however it is read.
    """
    whole, _, fraction = stamp.rstrip(b"Z").partition(b".")
    moment = datetime.fromisoformat(whole.decode()).replace(tzinfo=UTC)
    seconds = (moment - _EPOCH) // _SECOND
    return (seconds * 1_000_000_000 + int(fraction.ljust(9, b"0") or b"0")) / 1_000_000_000


_SECOND = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC) - _EPOCH
