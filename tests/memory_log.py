"""The reference log: the same promises in one process, kept in lists, with faults on demand.

Every fact goes through the codec, so what a unit test reads back is what the real log would give.
"""

import asyncio
import enum
import itertools
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import cast

import msgspec

from streams.codec import HEADER_LINE, decode, encode_headers, encode_payload
from streams.log import (
    Appended,
    AppendError,
    BadFact,
    Conflict,
    Draft,
    Fact,
    LogFull,
    LogMessage,
    LogReset,
    LogState,
    LogUnavailable,
    TooLarge,
)
from streams.plan.events import Heartbeat, Progress
from streams.subjects import PLANS, subject_of

BATCH = 500


class Fault(enum.Enum):
    """What may happen to the next append."""

    CONFLICT = "another writer was quicker"
    LOST_BEFORE = "unavailable, and nothing was written"
    LOST_AFTER = "unavailable, although it was written"


class Stored(msgspec.Struct, frozen=True, gc=False):
    """One message; ``expires_at`` None means never."""

    sequence: int
    at: float
    subject: str
    headers: bytes
    payload: bytes
    expires_at: float | None


class MemoryLog:
    """`streams.log.Log` without a server.

    ``clock`` gives the log's time in seconds since the epoch. ``max_bytes`` counts payloads.
    Tests also use `fail_next`, `work_again`, `publish` (a message by hand), `expire`, `purge` and
    `reset`.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        *,
        max_bytes: int | None = None,
        max_payload: int = 1024 * 1024,
        chatter_ttl_s: float = 86_400,
    ) -> None:
        self._clock = clock
        self._max_bytes = max_bytes
        self._max_payload = max_payload
        self._chatter_ttl_s = chatter_ttl_s
        self._faults: deque[Fault] = deque()
        self._ids = itertools.count(1)
        self._epochs = itertools.count(1)
        self._closed = False
        self.forgotten = 0  # `LogState.forgotten`; a test sets it
        self._empty()

    def _empty(self) -> None:
        self._epoch = f"memory-{next(self._epochs)}"
        self._messages: list[Stored] = []
        self._head = 0
        self._size_bytes = 0
        self._last: dict[str, list[int]] = {}
        self._grown = asyncio.Event()

    @property
    def epoch(self) -> str:
        """Names this log; another one after `reset`."""
        return self._epoch

    @property
    def connected(self) -> bool:
        """Always, until it is closed."""
        return not self._closed

    @property
    def last_error(self) -> str | None:
        """Nothing is ever wrong with it."""
        return None

    async def append(self, draft: Draft) -> Appended | Conflict:
        """See `streams.log.Log.append`."""
        subject = subject_of(draft.plan_id, draft.task_id)
        if not draft.events:
            raise ValueError("a draft has at least one event")
        # Others get their turn before it is stored, and before it is answered.
        await asyncio.sleep(0)
        fault = self._faults.popleft() if self._faults else None
        if self._closed or fault is Fault.LOST_BEFORE:
            raise LogUnavailable("the log does not answer")
        outcome = self._store_all(draft, subject, fault)
        await asyncio.sleep(0)
        if fault is Fault.LOST_AFTER:
            raise LogUnavailable("the log does not answer")
        return outcome

    async def append_all(self, drafts: Sequence[Draft]) -> list[Appended | Conflict | AppendError]:
        """See `streams.log.Log.append_all`."""
        appends = (self.append(draft) for draft in drafts)
        answers = await asyncio.gather(*appends, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, AppendError):
                raise answer
        return cast("list[Appended | Conflict | AppendError]", answers)

    async def follow(self, after: int) -> AsyncIterator[list[Fact | BadFact]]:
        """See `streams.log.Log.follow`."""
        epoch = self._epoch
        while not self._closed:
            if epoch != self._epoch or self._head < after:
                raise LogReset(f"the log ends at {self._head}, before {after}, or was made anew")
            grown = self._grown
            start = bisect_right(self._messages, after, key=_sequence)
            facts = [_fact(message) for message in self._messages[start : start + BATCH]]
            if facts:
                after = facts[-1].sequence
                yield facts
            else:
                await grown.wait()

    async def read(
        self, plan_id: str, task_id: str | None = None, *, after: int = 0, up_to: int | None = None
    ) -> list[Fact | BadFact]:
        """See `streams.log.Log.read`."""
        subject = subject_of(plan_id, task_id)
        below = f"{subject}." if task_id is None else None
        await asyncio.sleep(0)
        start = bisect_right(self._messages, after, key=_sequence)
        end = None if up_to is None else bisect_right(self._messages, up_to, key=_sequence)
        return [
            _fact(message)
            for message in self._messages[start:end]
            if message.subject == subject or (below and message.subject.startswith(below))
        ]

    async def first_of(self, plan_id: str) -> Fact | BadFact | None:
        """See `streams.log.Log.first_of`."""
        await asyncio.sleep(0)
        sequences = self._last.get(subject_of(plan_id))
        if not sequences:
            return None
        return _fact(self._messages[bisect_left(self._messages, sequences[0], key=_sequence)])

    async def last_of(self, plan_id: str) -> Fact | BadFact | None:
        """See `streams.log.Log.last_of`."""
        await asyncio.sleep(0)
        sequences = self._last.get(subject_of(plan_id))
        if not sequences:
            return None
        return _fact(self._messages[bisect_left(self._messages, sequences[-1], key=_sequence)])

    async def scan(
        self, after: int, limit: int, plan_id: str | None = None
    ) -> list[Fact | BadFact]:
        """See `streams.log.Log.scan`."""
        if plan_id is not None:
            return (await self.read(plan_id, after=after))[:limit]
        await asyncio.sleep(0)
        start = bisect_right(self._messages, after, key=_sequence)
        return [_fact(message) for message in self._messages[start : start + limit]]

    async def messages(self, plan_id: str | None, after: int, limit: int) -> list[LogMessage]:
        """See `streams.log.Log.messages`."""
        subject = PLANS if plan_id is None else subject_of(plan_id)
        await asyncio.sleep(0)
        start = bisect_right(self._messages, after, key=_sequence)
        return [
            LogMessage(each.sequence, each.at, each.subject, each.headers, each.payload)
            for each in self._messages[start:]
            if each.subject == subject or each.subject.startswith(f"{subject}.")
        ][:limit]

    def wrote(self, event_id: str) -> bool:
        """See `streams.log.Log.wrote`."""
        return event_id.startswith("memory-")

    async def state(self) -> LogState:
        """See `streams.log.Log.state`."""
        await asyncio.sleep(0)
        return LogState(
            stream="MEMORY",
            first=self._messages[0].sequence if self._messages else self._head + 1,
            head=self._head,
            size_bytes=self._size_bytes,
            epoch=self._epoch,
            at=self._clock(),
            forgotten=self.forgotten,
        )

    async def close(self) -> None:
        """See `streams.log.Log.close`."""
        self._closed = True
        self._announce()

    def fail_next(self, *faults: Fault) -> None:
        """Let the next appends meet these faults, one each."""
        self._faults.extend(faults)

    def work_again(self) -> None:
        """Meet none of the faults that are left."""
        self._faults.clear()

    def publish(self, subject: str, payload: bytes, headers: bytes = b"") -> int:
        """Store a message as it is, as the NATS command line does; its sequence."""
        if not subject.startswith(f"{PLANS}."):
            raise ValueError(f"the log does not hold {subject}")
        self._store(subject, headers, payload, None)
        self._announce()
        return self._head

    def expire(self) -> None:
        """Forget every heartbeat and progress whose time has come by the clock."""
        now = self._clock()
        self._keep(lambda each: each.expires_at is None or each.expires_at > now)

    def purge(self, gone: Callable[[int], bool]) -> None:
        """Remove the messages whose sequence is ``gone``, as an administrator does."""
        self._keep(lambda each: not gone(each.sequence))

    def reset(self) -> None:
        """Throw everything away, as a stream that was deleted and made anew."""
        grown = self._grown
        self._empty()
        grown.set()

    def _keep(self, stays: Callable[[Stored], bool]) -> None:
        self._messages = [each for each in self._messages if stays(each)]
        self._size_bytes = sum(len(each.payload) for each in self._messages)
        kept = {each.sequence for each in self._messages}
        for subject, sequences in self._last.items():
            self._last[subject] = [each for each in sequences if each in kept]

    # Storing.

    def _store_all(self, draft: Draft, subject: str, fault: Fault | None) -> Appended | Conflict:
        payloads = [encode_payload(event) for event in draft.events]
        if any(len(payload) > self._max_payload for payload in payloads):
            raise TooLarge(f"one event is larger than {self._max_payload} bytes")
        sequences = self._last.get(subject)
        actual = sequences[-1] if sequences else 0
        if fault is Fault.CONFLICT or actual != draft.expected:
            return Conflict(actual)
        size = sum(map(len, payloads))
        if self._max_bytes is not None and self._size_bytes + size > self._max_bytes:
            raise LogFull(f"the log is full: it holds at most {self._max_bytes} bytes")
        for event, payload in zip(draft.events, payloads, strict=True):
            lines = encode_headers(event, f"memory-{next(self._ids)}", draft.origin)
            short = isinstance(event, Heartbeat | Progress)
            own_ttl_s = draft.chatter_ttl_s
            ttl_s = self._chatter_ttl_s if own_ttl_s is None else own_ttl_s
            expires_at = self._clock() + ttl_s if short else None
            self._store(subject, HEADER_LINE + lines + b"\r\n", payload, expires_at)
        self._announce()
        return Appended(self._head)

    def _store(
        self, subject: str, headers: bytes, payload: bytes, expires_at: float | None
    ) -> None:
        self._head += 1
        self._size_bytes += len(payload)
        self._last.setdefault(subject, []).append(self._head)
        self._messages.append(
            Stored(self._head, self._clock(), subject, headers, payload, expires_at)
        )

    def _announce(self) -> None:
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()


def _sequence(message: Stored) -> int:
    return message.sequence


def _fact(message: Stored) -> Fact | BadFact:
    return decode(message.sequence, message.at, message.subject, message.headers, message.payload)
