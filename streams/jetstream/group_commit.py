"""Group commit: many callers each write one fact, and the log is asked to sync as seldom as it can.

Waiting drafts are gathered. A few are sent singly and pipelined, since a batch costs some 2.5 ms
whatever its size; many go as one atomic batch, and while it is on its way the next one gathers. So
one caller alone sees the latency of one publish, and hundreds share one sync.

What makes it safe:

- Every draft carries the expected sequence of its own literal subject, and ids for its events.
- At most one draft per subject is on its way. Others of the same subject stand behind it, and are
  answered from its outcome when that alone decides them.
- A refused batch says that one message lost its race, not which: the losers are looked up and
  answered, the others go again.
- A message whose outcome is unknown is sent again with the same id until the log has answered
  *duplicate*, or has refused it and shown which message stands there instead.

Deliberately absent: NATS itself, which is behind `streams.jetstream.transport`.
"""

import asyncio
import itertools
import re
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol, assert_never

import msgspec
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from streams.codec import encode_headers, encode_payload
from streams.jetstream.transport import (
    Answer,
    Found,
    Message,
    Refused,
    Stored,
    Transport,
    Unknown,
)
from streams.log import Appended, Conflict, Draft, LogFull, LogUnavailable, TooLarge
from streams.plan.events import Heartbeat, Progress
from streams.subjects import subject_of

SINGLES = 15  # up to here singles are quicker than a batch
BATCHES = 2  # on their way at a time: one is written by the server while the other is gathered
TURN = 64  # callers of a stored batch that are answered in one turn of the loop
BATCH_MESSAGES = 1_000  # the server's limit
BATCH_BYTES = 4 * 1024 * 1024
SIFTINGS = 3  # refusals of its batch after which a draft goes alone
SETTLING = 16  # drafts of unknown outcome asked about at a time
ENVELOPE_BYTES = 256  # more than the headers that are added when a message is sent

CHATTER_LINE = b"Nats-TTL: %ds\r\n"

WRONG_SEQUENCE = 10071
WRONG_SEQUENCE_IN_FLIGHT = 10164
DUPLICATE_IN_BATCH = 10201
STORE_FAILED = 10077
ACCOUNT_FULL = 10002
SERVER_FULL = 10023
STORAGE_FULL = 10047
TOO_LARGE = 10054

Outcome = Appended | Conflict


class Observer(Protocol):
    """What happens to appends, in verbs."""

    def appended(self, count: int, batch_size: int, duration_s: float) -> None:
        """``count`` facts were written in ``duration_s``, sent ``batch_size`` at a time."""
        ...

    def append_failed(self, kind: str) -> None:
        """A draft failed: ``unavailable``, ``full``, ``too_large`` or ``crowded``."""
        ...

    def conflicted(self) -> None:
        """A draft lost its race."""
        ...


class Unobserved:
    """Ignores every event."""

    def appended(self, count: int, batch_size: int, duration_s: float) -> None:
        """See `Observer`."""

    def append_failed(self, kind: str) -> None:
        """See `Observer`."""

    def conflicted(self) -> None:
        """See `Observer`."""


class AppenderLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how much: budgets in seconds, ``max_waiting`` in drafts and in bytes.

    ``try_s`` bounds one attempt, ``budget_s`` a draft whose outcome is unknown, ``grace_s`` one
    that was never sent because the log is not there.
    """

    budget_s: float = 10.0
    try_s: float = 2.0
    grace_s: float = 2.0
    max_waiting: int = 20_000
    max_waiting_bytes: int = 128 * 1024 * 1024
    chatter_ttl_s: int = 86_400


DEFAULT_LIMITS = AppenderLimits()


class _Ticket:
    """One draft on its way through the appender."""

    __slots__ = (
        "came_at",
        "doubtful",
        "draft",
        "event_id",
        "messages",
        "outcome",
        "sifted",
        "size",
        "subject",
        "tries",
    )

    def __init__(
        self, draft: Draft, subject: str, event_id: str, messages: tuple[Message, ...]
    ) -> None:
        self.draft = draft
        self.subject = subject
        self.event_id = event_id
        self.messages = messages
        self.size = sum(len(message.payload) + len(message.lines) for message in messages)
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.came_at = time.monotonic()
        self.doubtful = False  # whether an earlier attempt may have been stored, or may yet be
        self.sifted = 0
        self.tries = 0  # alone


class _UnsettledError(Exception):
    """The outcome is still unknown: ask again."""


class EventIds:
    """Ids no other process makes: a random start and a counter."""

    def __init__(self) -> None:
        self._start = f"{secrets.token_hex(6)}-"
        self._count = itertools.count(1)

    def next(self) -> str:
        """An id that was never given before."""
        return f"{self._start}{next(self._count):x}"

    def gave(self, event_id: str) -> bool:
        """Whether `next` gave this id."""
        return event_id.startswith(self._start)


class Appender:
    """Gathers drafts, sends them through ``transport``, and finds out what became of each."""

    def __init__(
        self,
        transport: Transport,
        *,
        limits: AppenderLimits = DEFAULT_LIMITS,
        observer: Observer | None = None,
    ) -> None:
        self._transport = transport
        self._limits = limits
        self._observer = observer or Unobserved()
        self._loop = asyncio.get_running_loop()
        self._ids = EventIds()
        self._chatter_line = CHATTER_LINE % self._limits.chatter_ttl_s
        self._waiting: deque[_Ticket] = deque()
        # Subjects with a draft in `_waiting` or on its way, and the drafts that stand behind it.
        self._behind: dict[str, deque[_Ticket]] = {}
        self._live: dict[_Ticket, None] = {}  # in the order in which they came
        self._live_bytes = 0
        self._singles = 0
        self._batches = 0
        self._pump_due = False
        self._settling = asyncio.Semaphore(SETTLING)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def append(self, draft: Draft) -> Outcome:
        """Write one draft; see `streams.log.Log.append`."""
        return await self._admit(draft).outcome

    def wrote(self, event_id: str) -> bool:
        """See `streams.log.Log.wrote`."""
        return self._ids.gave(event_id)

    @property
    def waiting_s(self) -> float:
        """For how many seconds the oldest draft has waited for its outcome; 0 for none."""
        oldest = next(iter(self._live), None)
        return 0.0 if oldest is None else time.monotonic() - oldest.came_at

    async def close(self) -> None:
        """Stop; callers that still wait get LogUnavailable."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for ticket in self._live:
            if not ticket.outcome.done():
                ticket.outcome.set_exception(LogUnavailable("the log was closed"))

    # Coming in.

    def _admit(self, draft: Draft) -> _Ticket:
        if self._closed:
            raise LogUnavailable("the log was closed")
        if len(self._live) >= self._limits.max_waiting:
            self._observer.append_failed("crowded")
            raise LogUnavailable(f"{len(self._live)} writes are waiting for the log already")
        ticket = self._ticket(draft)
        # One draft alone always fits: the log itself bounds its size.
        if self._live and self._live_bytes + ticket.size > self._limits.max_waiting_bytes:
            self._observer.append_failed("crowded")
            raise LogUnavailable(f"{self._live_bytes} bytes are waiting for the log already")
        self._live[ticket] = None
        self._live_bytes += ticket.size
        behind = self._behind.get(ticket.subject)
        if behind is None:
            self._behind[ticket.subject] = deque()
            self._wait(ticket)
        else:
            behind.append(ticket)
        return ticket

    def _ticket(self, draft: Draft) -> _Ticket:
        if not 1 <= len(draft.events) <= BATCH_MESSAGES:
            raise ValueError(f"a draft has 1 to {BATCH_MESSAGES} events, not {len(draft.events)}")
        subject = subject_of(draft.plan_id, draft.task_id)
        event_id = self._ids.next()
        messages = tuple(self._messages(draft, subject, event_id))
        for message in messages:
            size = len(message.payload) + len(message.lines) + ENVELOPE_BYTES
            if size > self._transport.max_payload:
                self._observer.append_failed("too_large")
                raise TooLarge(
                    f"one event of {size} bytes; the log takes {self._transport.max_payload}"
                )
        return _Ticket(draft, subject, event_id, messages)

    def _messages(self, draft: Draft, subject: str, event_id: str) -> list[Message]:
        messages: list[Message] = []
        for place, event in enumerate(draft.events):
            own_id = event_id if place == 0 else f"{event_id}.{place}"
            lines = encode_headers(event, own_id, draft.origin)
            if type(event) is Heartbeat or type(event) is Progress:
                ttl_s = draft.chatter_ttl_s
                lines += self._chatter_line if ttl_s is None else CHATTER_LINE % ttl_s
            expected = draft.expected if place == 0 else None
            messages.append(Message(subject, expected, lines, encode_payload(event)))
        return messages

    def _wait(self, ticket: _Ticket) -> None:
        self._waiting.append(ticket)
        self._schedule()

    # Going out.

    def _schedule(self) -> None:
        # One turn of the loop later, so that all writes of this turn are gathered.
        if not self._pump_due:
            self._pump_due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_due = False
        if self._closed:
            return
        if not self._transport.connected:
            self._settle_all(self._take(len(self._waiting)))
            return
        while self._waiting and self._batches < BATCHES:
            if len(self._waiting) + self._singles <= SINGLES:
                self._send_few()
            elif len(self._waiting) < SINGLES and self._singles:
                return  # too few for a batch, too many for singles: gather until something returns
            else:
                self._send_batch(self._gather())

    def _take(self, count: int) -> list[_Ticket]:
        # The draft of a caller that was cancelled is not sent at all.
        taken: list[_Ticket] = []
        for _ in range(count):
            ticket = self._waiting.popleft()
            if ticket.outcome.cancelled():
                self._leave(ticket, None)
            else:
                taken.append(ticket)
        return taken

    def _gather(self) -> list[_Ticket]:
        messages = size = count = 0
        for ticket in self._waiting:
            messages += len(ticket.messages)
            size += ticket.size
            if count and (messages > BATCH_MESSAGES or size > BATCH_BYTES):
                break
            count += 1
        return self._take(count)

    def _send_few(self) -> None:
        for ticket in self._take(len(self._waiting)):
            if len(ticket.messages) > 1:
                self._send_batch([ticket])
            else:
                self._send_single(ticket)

    def _publish(self, messages: Sequence[Message]) -> "asyncio.Future[Answer]":
        try:
            return self._transport.publish(messages, self._limits.try_s)
        except Exception as error:  # noqa: BLE001 - every waiting caller gets an outcome
            answer: asyncio.Future[Answer] = self._loop.create_future()
            answer.set_result(Unknown(repr(error)))
            return answer

    def _send_single(self, ticket: _Ticket) -> None:
        self._singles += 1
        started = time.monotonic()
        answer = self._publish(ticket.messages)

        def done(answered: asyncio.Future[Answer]) -> None:
            self._singles -= 1
            self._on_single(ticket, answered.result(), started)
            self._schedule()

        answer.add_done_callback(done)

    def _on_single(self, ticket: _Ticket, answer: Answer, started: float) -> None:
        match answer:
            case Stored(sequence):
                self._observer.appended(len(ticket.messages), 1, time.monotonic() - started)
                self._win(ticket, sequence)
            case Refused(code, reason) if code in {WRONG_SEQUENCE, WRONG_SEQUENCE_IN_FLIGHT}:
                self._lose(ticket, _actual(reason))
            case Refused():
                self._settle_all([ticket])
            case Unknown():
                ticket.doubtful = True
                self._settle_all([ticket])
            case _:
                assert_never(answer)

    def _send_batch(self, lot: list[_Ticket]) -> None:
        if not lot:
            return
        self._batches += 1
        started = time.monotonic()
        messages = [message for ticket in lot for message in ticket.messages]
        answer = self._publish(messages)

        def done(answered: asyncio.Future[Answer]) -> None:
            self._batches -= 1
            self._on_batch(lot, len(messages), answered.result(), started)
            self._schedule()

        answer.add_done_callback(done)

    def _on_batch(self, lot: list[_Ticket], size: int, answer: Answer, started: float) -> None:
        match answer:
            case Stored(last):
                self._observer.appended(size, size, time.monotonic() - started)
                self._win_in_turns(lot, last - size)
            case Refused(code, reason) if code in {WRONG_SEQUENCE, WRONG_SEQUENCE_IN_FLIGHT}:
                if len(lot) == 1:
                    self._lose(lot[0], _actual(reason))
                else:
                    self._start(self._sift(lot))
            case Refused():
                self._settle_all(lot)
            case Unknown():
                for ticket in lot:
                    ticket.doubtful = True
                self._settle_all(lot)
            case _:
                assert_never(answer)

    def _win_in_turns(self, lot: list[_Ticket], before: int) -> None:
        """Answer a stored lot a part at a time, so that the first can write while others wake."""
        sequence = before
        for ticket in lot[:TURN]:
            sequence += len(ticket.messages)
            self._win(ticket, sequence)
        if len(lot) > TURN:
            self._loop.call_soon(self._win_in_turns, lot[TURN:], sequence)

    async def _sift(self, lot: list[_Ticket]) -> None:
        """Answer those of a refused batch that lost their race, and send the others again."""
        try:
            last = await self._transport.last_of([ticket.subject for ticket in lot])
        except LogUnavailable:
            self._settle_all(lot)
            return
        again: list[_Ticket] = []
        for ticket in lot:
            actual = last.get(ticket.subject, 0)
            # Only a higher sequence is proof: a lower one may come from a replica that lags.
            if actual > ticket.draft.expected:
                self._lose(ticket, actual)
            else:
                again.append(ticket)
        self._send_again(again, progress=len(again) < len(lot))

    def _send_again(self, lot: list[_Ticket], *, progress: bool) -> None:
        for ticket in lot:
            ticket.sifted += 1
        if progress and lot and lot[0].sifted < SIFTINGS:
            self._waiting.extendleft(reversed(lot))
            self._schedule()
        else:
            self._settle_all(lot)

    # Finding out, one by one.

    def _settle_all(self, lot: Sequence[_Ticket]) -> None:
        if not self._closed:
            for ticket in lot:
                self._start(self._settle(ticket))

    async def _settle(self, ticket: _Ticket) -> None:
        """Send one draft, alone and with its old ids, until its outcome is known or time is up."""
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(_UnsettledError),
                wait=wait_random_exponential(multiplier=0.02, max=0.5),
                stop=lambda _: self._left_s(ticket) <= 0,
                reraise=True,
            ):
                with attempt:
                    await self._try_alone(ticket)
        except _UnsettledError as error:
            self._fail(ticket, LogUnavailable(f"the log gave no answer: {error}"))
        except (LogUnavailable, LogFull, TooLarge) as error:
            self._fail(ticket, error)

    def _left_s(self, ticket: _Ticket) -> float:
        return ticket.came_at + self._limits.budget_s - time.monotonic()

    async def _try_alone(self, ticket: _Ticket) -> None:
        ticket.tries += 1
        await self._until_sendable(ticket)
        async with self._settling:
            if ticket.doubtful and await self._landed(ticket):
                return
            answer = await self._transport.publish(ticket.messages, self._try_s(ticket))
        match answer:
            case Stored(sequence):
                self._win_late(ticket, sequence)
            case Refused(code, reason):
                await self._on_refusal(ticket, code, reason)
            case Unknown(reason):
                ticket.doubtful = True
                raise _UnsettledError(reason)
            case _:
                assert_never(answer)

    def _try_s(self, ticket: _Ticket) -> float:
        # Twice as long each time: a log that is merely slow must not drown in repeated questions.
        return max(0.1, min(self._limits.try_s * 2 ** (ticket.tries - 1), self._left_s(ticket)))

    async def _until_sendable(self, ticket: _Ticket) -> None:
        if self._transport.connected:
            return
        # What was never sent is known not to be written, so its caller need not wait long.
        grace_s = self._limits.grace_s - self._transport.down_s
        patience = self._left_s(ticket) if ticket.doubtful else grace_s
        if not await self._transport.until_connected(max(0.0, patience)):
            raise LogUnavailable("NATS is not connected")

    async def _on_refusal(self, ticket: _Ticket, code: int, reason: str) -> None:
        if code == WRONG_SEQUENCE_IN_FLIGHT and ticket.doubtful:
            raise _UnsettledError(reason)  # the write in flight may be our own
        if code in {WRONG_SEQUENCE, WRONG_SEQUENCE_IN_FLIGHT, DUPLICATE_IN_BATCH}:
            await self._claim_or_lose(ticket, _actual(reason))
            return
        if code == TOO_LARGE:
            raise TooLarge(reason)
        if _is_full(code, reason):
            raise LogFull(f"the log is full: {reason}")
        raise _UnsettledError(f"{reason} ({code})")

    async def _claim_or_lose(self, ticket: _Ticket, actual: int | None) -> None:
        """Say whether it was refused because another was first, or because an earlier try was."""
        if not ticket.doubtful:
            self._lose(ticket, actual)
            return
        found = await self._look_up(ticket)
        if found is None and (actual is None or actual > ticket.draft.expected):
            # Refused for a message that is not there: a leader that is cut off was asked.
            raise _UnsettledError("the log refuses and shows no message that was first")
        if not self._is_own(ticket, found):
            self._lose(ticket, actual)

    async def _landed(self, ticket: _Ticket) -> bool:
        """Answer the draft if an earlier attempt turns out to be stored; else False.

        Looking costs the log a fraction of what storing, or refusing, a batch does.
        """
        return self._is_own(ticket, await self._look_up(ticket))

    async def _look_up(self, ticket: _Ticket) -> Found | None:
        """The first message above the expected sequence: where the draft stands if it is stored."""
        try:
            return await self._transport.first_after(
                ticket.subject, ticket.draft.expected, self._try_s(ticket)
            )
        except LogUnavailable as error:
            raise _UnsettledError(str(error)) from error

    def _is_own(self, ticket: _Ticket, found: Found | None) -> bool:
        """Answer the draft if ``found`` is its message; else False."""
        if found is None or found.event_id != ticket.event_id:
            return False
        self._win_late(ticket, found.sequence + len(ticket.messages) - 1)
        return True

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Coming out.

    def _win(self, ticket: _Ticket, sequence: int) -> None:
        if not ticket.outcome.done():
            ticket.outcome.set_result(Appended(sequence))
        self._leave(ticket, sequence)

    def _win_late(self, ticket: _Ticket, sequence: int) -> None:
        """Win after trouble: what it took is what its caller waited, all tries together."""
        size = len(ticket.messages)
        self._observer.appended(size, size, time.monotonic() - ticket.came_at)
        self._win(ticket, sequence)

    def _lose(self, ticket: _Ticket, actual: int | None) -> None:
        self._observer.conflicted()
        if not ticket.outcome.done():
            ticket.outcome.set_result(Conflict(actual))
        self._leave(ticket, actual)

    def _fail(self, ticket: _Ticket, error: LogUnavailable | LogFull | TooLarge) -> None:
        kinds: dict[type[Any], str] = {LogFull: "full", TooLarge: "too_large"}
        self._observer.append_failed(kinds.get(type(error), "unavailable"))
        if not ticket.outcome.done():
            ticket.outcome.set_exception(error)
        self._leave(ticket, None)

    def _forget(self, ticket: _Ticket) -> None:
        if ticket in self._live:
            del self._live[ticket]
            self._live_bytes -= ticket.size

    def _leave(self, ticket: _Ticket, last: int | None) -> None:
        """Let the next draft of the subject go; ``last`` is its last sequence, if that is known."""
        self._forget(ticket)
        behind = self._behind[ticket.subject]
        while behind:
            following = behind.popleft()
            if last is not None and following.draft.expected < last:
                # It cannot win any more; the log need not be asked.
                self._forget(following)
                self._observer.conflicted()
                if not following.outcome.done():
                    following.outcome.set_result(Conflict(last))
                continue
            self._wait(following)
            return
        del self._behind[ticket.subject]


def _is_full(code: int, reason: str) -> bool:
    """Whether the stream's, the account's or the server's bound is reached, or the disk is full."""
    if code == STORE_FAILED:
        return "maximum" in reason or "no space" in reason
    return code in {ACCOUNT_FULL, SERVER_FULL, STORAGE_FULL}


_says_sequence = re.compile(r"(\d+)\s*$").search


def _actual(reason: str) -> int | None:
    """The sequence in ``wrong last sequence: 7``; None when the log does not name one."""
    found = _says_sequence(reason)
    return None if found is None else int(found[1])
