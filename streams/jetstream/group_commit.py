"""Group commit: many callers each write one fact, and the log is asked to sync as seldom as it can.

Waiting drafts are gathered. A few are sent singly and pipelined, since a batch costs some 2.5 ms
whatever its size; many go as one atomic batch, and while it is on its way the next one gathers
(`pace`). So one caller alone sees the latency of one publish, and hundreds share one sync.

What makes it safe:

- Every draft carries the expected sequence of its own literal subject, and ids for its events.
- At most one draft per subject is on its way (`drafts`).
- A refused batch says that one message lost its race, not which: the losers are looked up and
  answered, the others go again.
- A message whose outcome is unknown is sent again with the same id until it is known
  (`unknown_outcomes`).

Deliberately absent: NATS itself, which is behind `streams.jetstream.transport`.
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable, Sequence
from operator import methodcaller
from typing import assert_never

from streams.codec import encode_headers, encode_payload
from streams.jetstream.drafts import (
    BATCH_MESSAGES,
    DEFAULT_LIMITS,
    AppenderLimits,
    AppendOutcome,
    Drafts,
    Observer,
    Ticket,
    Unobserved,
)
from streams.jetstream.pace import BatchPace
from streams.jetstream.refusals import LOST, actual_sequence
from streams.jetstream.transport import (
    Message,
    Stored,
    Transport,
    Unknown,
    WriteAnswer,
    WriteRefused,
)
from streams.jetstream.unknown_outcomes import UnknownOutcomes
from streams.log import AppendError, Draft, LogFull, LogUnavailable, TooLarge, Unreadable
from streams.plan.events import Heartbeat, Progress
from streams.subjects import subject_of

SINGLES = 15  # up to here singles are quicker than a batch
BATCHES = 2  # on their way at a time: one is written by the server while the other is gathered
TIMER_S = 0.001  # uvloop's timers count milliseconds
TURN = 64  # callers of a stored batch that are answered in one turn of the loop
SIFTINGS = 3  # refusals of its batch after which a draft goes alone
ENVELOPE_BYTES = 256  # more than the headers that are added when a message is sent

CHATTER_LINE = b"Nats-TTL: %ds\r\n"


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
        # Ids no other process makes: a random start and a counter.
        self._ids_begin = f"{secrets.token_hex(6)}-"
        self._ids = itertools.count(1)
        self.wrote: Callable[[str], bool] = methodcaller("startswith", self._ids_begin)
        self._chatter_line = CHATTER_LINE % self._limits.chatter_ttl_s
        self._drafts = Drafts(limits, self._observer, self._schedule)
        self._unknown = UnknownOutcomes(transport, self._drafts, limits)
        self._singles = 0
        self._batches = 0
        self._pump_due = False
        self._pace = BatchPace()
        self._closed = False

    def append(self, draft: Draft) -> "asyncio.Future[AppendOutcome]":
        """Write one draft; what `streams.log.Log.append` answers or raises is in the future."""
        outcome: asyncio.Future[AppendOutcome] = self._loop.create_future()
        try:
            self._drafts.admit(self._ticket(draft, outcome))
        except (LogUnavailable, TooLarge, Unreadable) as error:
            outcome.set_exception(error)
        return outcome

    async def append_all(self, drafts: Sequence[Draft]) -> list[AppendOutcome | AppendError]:
        """Write many; see `streams.log.Log.append_all`. They wait without a task for each."""
        outcomes = [self.append(draft) for draft in drafts]
        answers: list[AppendOutcome | AppendError] = []
        try:
            for outcome in outcomes:  # one after the other: a batch answers all of them at once
                try:
                    answers.append(await outcome)
                except (LogUnavailable, LogFull, TooLarge, Unreadable) as error:
                    answers.append(error)
        finally:
            for outcome in outcomes:
                outcome.cancel()  # those that nothing waits for any more
        return answers

    @property
    def waiting_s(self) -> float:
        """For how many seconds the oldest draft has waited for its outcome; 0 for none."""
        return self._drafts.waiting_s

    async def close(self) -> None:
        """Stop; callers that still wait get LogUnavailable."""
        self._closed = True
        await self._unknown.close()
        self._drafts.close()

    def _ticket(self, draft: Draft, outcome: "asyncio.Future[AppendOutcome]") -> Ticket:
        if self._closed:
            raise LogUnavailable("the log was closed")
        if not 1 <= len(draft.events) <= BATCH_MESSAGES:
            raise ValueError(f"a draft has 1 to {BATCH_MESSAGES} events, not {len(draft.events)}")
        subject = subject_of(draft.plan_id, draft.task_id)
        event_id = f"{self._ids_begin}{next(self._ids):x}"
        most = self._transport.max_payload
        messages: list[Message] = []
        total = 0
        for place, event in enumerate(draft.events):
            own_id = f"{event_id}.{place}" if place else event_id
            lines = encode_headers(event, own_id, draft.origin)
            if type(event) is Heartbeat or type(event) is Progress:
                ttl_s = draft.chatter_ttl_s
                lines += self._chatter_line if ttl_s is None else CHATTER_LINE % ttl_s
            payload = encode_payload(event)
            size = len(payload) + len(lines)
            if size + ENVELOPE_BYTES > most:
                self._observer.append_failed("too_large")
                raise TooLarge(f"one event of {size + ENVELOPE_BYTES} bytes; the log takes {most}")
            total += size
            messages.append(Message(subject, None if place else draft.expected, lines, payload))
        return Ticket(subject, draft.expected, event_id, messages, total, outcome)

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
            self._unknown.settle(self._drafts.take_all())
            return
        while self._drafts.waiting and self._batches < BATCHES:
            hold_s = self._pace.hold_s(self._drafts.waiting, time.monotonic())
            if self._batches and hold_s:
                self._pump_due = True
                self._loop.call_later(max(hold_s, TIMER_S), self._pump)
                return
            if self._drafts.waiting + self._singles <= SINGLES:
                self._send_few()
            elif self._drafts.waiting < SINGLES and self._singles:
                return  # too few for a batch, too many for singles: gather until something returns
            else:
                self._send(self._drafts.take_batch())

    def _send_few(self) -> None:
        for ticket in self._drafts.take_all():
            self._send([ticket])

    def _publish(self, messages: Sequence[Message]) -> "asyncio.Future[WriteAnswer]":
        try:
            return self._transport.publish(messages, self._limits.try_s)
        except Exception as error:  # noqa: BLE001 - every waiting caller gets an outcome
            answer: asyncio.Future[WriteAnswer] = self._loop.create_future()
            answer.set_result(Unknown(repr(error)))
            return answer

    def _send(self, lot: list[Ticket]) -> None:
        if not lot:
            return
        messages = [message for ticket in lot for message in ticket.messages]
        size = len(messages)
        single = size == 1
        self._singles += single
        self._batches += not single
        started = time.monotonic()
        if not single:
            self._pace.sent(started)
        answer = self._publish(messages)

        def done(answered: asyncio.Future[WriteAnswer]) -> None:
            self._singles -= single
            self._batches -= not single
            self._on_answer(lot, size, answered.result(), started)
            self._schedule()

        answer.add_done_callback(done)

    def _on_answer(self, lot: list[Ticket], size: int, answer: WriteAnswer, started: float) -> None:
        match answer:
            case Stored(last):
                took_s = time.monotonic() - started
                self._observer.appended(size, size, took_s)
                if size > 1:
                    self._pace.stored(took_s)
                self._win_in_turns(lot, last - size)
            case WriteRefused(code, reason) if code in LOST:
                if len(lot) == 1:
                    self._drafts.lose(lot[0], actual_sequence(reason))
                else:
                    self._unknown.run(self._sift(lot))
            case WriteRefused():
                self._unknown.settle(lot)
            case Unknown():
                for ticket in lot:
                    ticket.doubtful = True
                self._unknown.settle(lot)
            case _:
                assert_never(answer)

    def _win_in_turns(self, lot: list[Ticket], before: int) -> None:
        """Answer a stored lot a part at a time, so that the first can write while others wake."""
        sequence = self._drafts.win(lot[:TURN], before)
        if len(lot) > TURN:
            self._loop.call_soon(self._win_in_turns, lot[TURN:], sequence)

    async def _sift(self, lot: list[Ticket]) -> None:
        """Answer those of a refused batch that lost their race, and send the others again."""
        try:
            last = await self._transport.last_of([ticket.subject for ticket in lot])
        except LogUnavailable:
            self._unknown.settle(lot)
            return
        again: list[Ticket] = []
        for ticket in lot:
            actual = last.get(ticket.subject, 0)
            # Only a higher sequence is proof: a lower one may come from a replica that lags.
            if actual > ticket.expected:
                self._drafts.lose(ticket, actual)
            else:
                again.append(ticket)
        self._send_again(again, progress=len(again) < len(lot))

    def _send_again(self, lot: list[Ticket], *, progress: bool) -> None:
        for ticket in lot:
            ticket.sifted += 1
        if progress and lot and lot[0].sifted < SIFTINGS:
            self._drafts.put_back(lot)
        else:
            self._unknown.settle(lot)
