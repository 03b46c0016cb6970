"""Results: reports how attempts ended, many in one request, until the server has answered each.

Something between here and the server may refuse one result for ever. The others do not wait for it:
a request that finds no end while others are accepted is sent in parts, and a single result alone.
"""

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic

import msgspec
from msgspec import Raw

from holdfast_worker.heartbeats import Heartbeats
from holdfast_worker.lease import AttemptKey, Lease
from holdfast_worker.outcome import Completed, Failed, Outcome, Released, bad_output
from holdfast_worker.session import (
    ACCEPTED,
    LOST,
    BatchAnswer,
    ItemAnswer,
    Session,
    lose_if_refused,
)
from holdfast_worker.wire import Answer, Unreachable, task_path

TOO_LARGE = 413

STORED = frozenset({"completed", "failed", "released"})

Pending = tuple[Lease, Outcome]


class _Execution(msgspec.Struct, frozen=True):
    attempt: int
    owner: str
    status: str


class _Task(msgspec.Struct, frozen=True):
    executions: list[_Execution]


class Results:
    """Sends the session's outcomes in the order in which they came, one request at a time.

    A result that could not be sent with others has a request of its own, beside them.
    """

    def __init__(self, session: Session, heartbeats: Heartbeats) -> None:
        self._session = session
        self._heartbeats = heartbeats

    async def run(self) -> None:
        """Report for ever."""
        async with asyncio.TaskGroup() as alone:
            await self._report_all(alone)

    async def _report_all(self, alone: asyncio.TaskGroup) -> None:
        session = self._session
        while True:
            await session.outcomes_wait.wait()
            session.outcomes_wait.clear()
            while batch := self._take():
                await self._heartbeats.say_last([lease for lease, _ in batch])
                await self._report(batch, alone)

    def _take(self) -> list[Pending]:
        """Outcomes for one request; those whose heartbeat is on its way come later."""
        session = self._session
        taken: list[Pending] = []
        size = 0
        for _ in range(len(session.outcomes)):
            lease, outcome = session.outcomes.popleft()
            if session.leases.get(lease.key) is not lease:
                continue  # lost meanwhile
            size += _size(outcome)
            full = len(taken) >= session.limits.batch or size > session.limits.batch_bytes
            if lease.in_flight or (taken and full):
                session.outcomes.append((lease, outcome))
            else:
                taken.append((lease, outcome))
        return taken

    async def _report(
        self, batch: Sequence[Pending], alone: asyncio.TaskGroup, *, tried: bool = False
    ) -> None:
        """Send ``batch``, in parts if need be; ``tried``: with others, and perhaps carried out."""
        session = self._session
        held = [each for each in batch if each[0].key in session.leases]
        if not held:
            return
        try:
            if await self._post(held, self._patience(held), tried=tried):
                return
        except Unreachable as error:
            tried = True
            if len(held) == 1:
                session.notices.warn("%s/%s#%d: %s", *held[0][0].key, error)
                alone.create_task(self._report_alone(held))
                return
        middle = len(held) // 2
        await self._report(held[:middle], alone, tried=tried)
        await self._report(held[middle:], alone, tried=tried)

    async def _report_alone(self, single: Sequence[Pending]) -> None:
        session, (lease, _) = self._session, single[0]
        try:
            await self._post(single, lambda: lease.report_until, tried=True)
        except Unreachable as error:
            session.notices.warn("%s/%s#%d: %s", *lease.key, error)
            session.lose(lease)
        session.outcomes_wait.set()  # what is to be said instead

    def _patience(self, batch: Sequence[Pending]) -> Callable[[], float]:
        """Until when a request is sent again: not for long while others are accepted."""
        session, asked_at = self._session, monotonic()
        until = max(lease.report_until for lease, _ in batch)

        return lambda: 0.0 if session.is_overtaken(asked_at) else until

    async def _post(
        self, batch: Sequence[Pending], until: Callable[[], float], *, tried: bool
    ) -> bool:
        """Send ``batch``; False when one of many does not fit. Raises Unreachable."""
        session = self._session
        body = {"owner": session.owner, "results": [_item(*each) for each in batch]}
        answer = await session.wire.ask("POST", "/v1/results", body, kind=BatchAnswer, until=until)
        if answer.ok:
            said: list[ItemAnswer] = answer.value.results
            repeated = answer.repeated or tried
            for (lease, outcome), each in zip(batch, said, strict=True):
                if repeated and each.status in LOST and await self._is_stored(lease):
                    self._accepted(lease, outcome)
                else:
                    self._settle(lease, outcome, each)
        elif len(batch) > 1:
            return False
        else:
            self._replace(*batch[0], answer)
        return True

    def _settle(self, lease: Lease, outcome: Outcome, said: ItemAnswer) -> None:
        session = self._session
        if said.status in ACCEPTED:
            self._accepted(lease, outcome)
        elif said.status in ("invalid_request", "too_large"):
            self._substitute(lease, outcome, said.status, said.detail)
        elif lose_if_refused(session, lease, said):
            return
        elif monotonic() > lease.report_until:
            session.lose(lease)
        else:  # contended: the same again
            session.outcomes.append((lease, outcome))

    def _accepted(self, lease: Lease, outcome: Outcome) -> None:
        _count(self._session, outcome)
        self._session.forget(lease)

    async def _is_stored(self, lease: Lease) -> bool:
        """Whether an earlier try was carried out, and the task has gone on since."""
        plan_id, task_id, attempt = lease.key
        session, path = self._session, task_path(plan_id, task_id)
        until = monotonic() + session.limits.request_s
        try:
            answer = await session.wire.ask("GET", path, kind=_Task, until=lambda: until)
        except Unreachable:
            return False
        return answer.ok and any(
            (each.attempt, each.owner) == (attempt, session.owner) and each.status in STORED
            for each in answer.value.executions
        )

    def _replace(self, lease: Lease, outcome: Outcome, answer: Answer) -> None:
        code = "too_large" if answer.status == TOO_LARGE else "invalid_request"
        self._substitute(lease, outcome, code, answer.refusal.detail)

    def _substitute(self, lease: Lease, outcome: Outcome, code: str, detail: str) -> None:
        """The server refuses the content: report that instead, so that the task does not hang."""
        session = self._session
        session.notices.warn("%s/%s#%d: the result was refused: %s", *lease.key, detail)
        if isinstance(outcome, Completed):
            failed = bad_output(f"the handler returned what cannot be stored: {detail}", None)
            if code == "too_large":
                failed = msgspec.structs.replace(failed, error_type="too_large")
            session.outcomes.append((lease, failed))
        elif isinstance(outcome, Failed) and outcome != (bare := _bare(outcome, detail)):
            session.outcomes.append((lease, bare))
        elif isinstance(outcome, Released) and (outcome.model_name or outcome.token_usage):
            # An older server takes no tokens with a release.
            session.outcomes.append((lease, Released(reason=outcome.reason)))
        else:
            session.lose(lease)


def _bare(failed: Failed, detail: str) -> Failed:
    """A failure with nothing in it that could be refused once more."""
    retryable = failed.retryable
    return Failed(error_type="handler_error", error_message=detail[:500], retryable=retryable)


def _item(lease: Lease, outcome: Outcome) -> Raw:
    """One object with the attempt's fields and those of its outcome."""
    attempt, ended = msgspec.json.encode(AttemptKey(*lease.key)), msgspec.json.encode(outcome)
    return Raw(attempt[:-1] + b"," + ended[1:])


def _size(outcome: Outcome) -> int:
    match outcome:
        case Completed():
            verdict = outcome.verdict
            return len(bytes(outcome.output)) + (
                len(bytes(verdict)) if isinstance(verdict, Raw) else 0
            )
        case Failed():
            return len(outcome.error_message)
        case _:
            return 0


def _count(session: Session, outcome: Outcome) -> None:
    match outcome:
        case Completed():
            session.counters.completed += 1
        case Failed():
            session.counters.failed += 1
        case _:
            session.counters.released += 1
