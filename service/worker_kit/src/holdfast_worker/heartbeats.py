"""Heartbeats: renews leases, shows progress, and stops handlers whose lease or time is over."""

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Any

import msgspec
from msgspec import Raw

from holdfast_worker.lease import BEATS_PER_LEASE, Lease
from holdfast_worker.session import ACCEPTED, BatchAnswer, ItemAnswer, Session, lose_if_refused
from holdfast_worker.wire import Answer, Trouble

AGAIN_SHARE = 0.2  # of the period: how soon a renewal that failed is tried again
SHORTEST_TICK_S = 0.02
LONGEST_TICK_S = 0.2
TICKS_PER_LEASE = 15


class LeaseItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One lease to renew."""

    plan_id: str
    task_id: str
    attempt: int
    progress: Raw | msgspec.UnsetType = msgspec.UNSET


class Heartbeats:
    """Looks at every lease once per tick. Lives on the worker's own loop."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._sending: set[asyncio.Task[None]] = set()
        self._ran = self._claimed = 0  # handlers that ran, and attempts claimed, at the last tick

    async def run(self) -> None:
        """Tick for ever."""
        while True:
            await asyncio.sleep(self._tick_s())
            self.step(monotonic())

    def step(self, now: float) -> None:
        """Stop what is over and send what is due at ``now``."""
        self._notice_delay(now)
        self._warn_of_overruns(now)
        due = [lease for lease in list(self._session.leases.values()) if self._is_due(lease, now)]
        for batch in self._batches(due):
            task = asyncio.create_task(self._send(batch))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def say_last(self, leases: Sequence[Lease]) -> None:
        """Send what ended attempts have still to show: no progress can follow a result.

        What is refused for long is left out, so that the results need not wait for it.
        """
        session, began, tries = self._session, monotonic(), 0
        while pending := [
            lease for lease in leases if lease.has_progress and lease.key in session.leases
        ]:
            asked_at = monotonic()
            if asked_at > min(lease.report_until for lease in pending):
                return
            if session.is_overtaken(began):
                for lease in pending:
                    session.notices.warn("%s/%s#%d: its last progress is refused", *lease.key)
                return
            # One by one after a failure: one of them may be refused for what it shows.
            for some in [pending] if not tries else [[lease] for lease in pending]:
                for batch in self._batches(some):
                    await self._send(batch)
            if any(lease.renewed_at < asked_at for lease in pending if lease.has_progress):
                await asyncio.sleep(session.wire.pause_s(tries))
                tries += 1

    # -- one tick ---------------------------------------------------------------------------

    def _tick_s(self) -> float:
        shortest_s = min((each.claim.lease_s for each in self._session.leases.values()), default=15)
        return min(max(shortest_s / TICKS_PER_LEASE, SHORTEST_TICK_S), LONGEST_TICK_S)

    def _notice_delay(self, now: float) -> None:
        """A handler that holds the interpreter lock in C keeps this loop from running."""
        session, late_s = self._session, now - self._session.alive_at
        worked = self._ran or session.counters.claimed > self._claimed
        if worked and late_s > session.limits.interpreter_held_s:
            session.notices.warn(
                "no heartbeat could be sent for %.1f s: the process was stopped, or a handler held "
                "the interpreter lock in C code; run such work in a process of its own",
                late_s,
            )
        session.alive_at = now
        self._ran, self._claimed = session.running, session.counters.claimed

    def _warn_of_overruns(self, now: float) -> None:
        waiting = [each for each in self._session.stopping if not each.handler_ended]
        for lease in waiting:
            if now >= lease.gives_up_at:
                self._session.warn_of_overrun(lease)
        self._session.stopping = [each for each in waiting if now < each.gives_up_at]

    def _is_due(self, lease: Lease, now: float) -> bool:
        if lease.ended:
            return False
        self._stop_if_over(lease, now)
        if lease.in_flight or lease.ended or lease.cancellation.reason in ("lease_lost", "fenced"):
            return False
        return now >= lease.beats_at or (now >= lease.shows_at and lease.has_progress)

    def _stop_if_over(self, lease: Lease, now: float) -> None:
        if not lease.begun:
            return
        if not lease.cancellation.is_set():
            if now >= lease.times_out_at:
                lease.cancellation.cancel("timeout")
            elif now >= lease.fence_at:
                lease.cancellation.cancel("lease_lost")
        if lease.cancellation.is_set():
            lease.gives_up_at = min(lease.gives_up_at, now + self._session.limits.grace_s)
            if now >= lease.gives_up_at:
                self._session.give_up(lease)

    # -- one request ------------------------------------------------------------------------

    def _batches(self, leases: Sequence[Lease]) -> list[list[tuple[Lease, LeaseItem]]]:
        """The leases with what is said of them, in requests of bounded size."""
        batches: list[list[tuple[Lease, LeaseItem]]] = []
        size = 0
        for lease in leases:
            item = _item(lease)
            length = (
                0 if isinstance(item.progress, msgspec.UnsetType) else len(bytes(item.progress))
            )
            limits = self._session.limits
            if (
                not batches
                or len(batches[-1]) >= limits.batch
                or size + length > limits.batch_bytes
            ):
                batches.append([])
                size = 0
            batches[-1].append((lease, item))
            size += length
        return batches

    async def _send(self, batch: Sequence[tuple[Lease, LeaseItem]]) -> None:
        asked_at = monotonic()
        shortest_s = min(lease.claim.lease_s for lease, _ in batch)
        body = {"owner": self._session.owner, "leases": [item for _, item in batch]}
        within_s = max(shortest_s / BEATS_PER_LEASE, SHORTEST_TICK_S)
        answer: Any = None
        try:
            answer = await self._session.wire.once(
                "POST", "/v1/heartbeats", body, kind=BatchAnswer, within_s=within_s
            )
        finally:
            self._settle(batch, answer, asked_at)

    def _settle(
        self,
        batch: Sequence[tuple[Lease, LeaseItem]],
        answer: Answer | Trouble | None,
        asked_at: float,
    ) -> None:
        items: Sequence[ItemAnswer | None] = [None] * len(batch)
        drop_progress = False
        wait_s = answer.retry_after_s if isinstance(answer, Trouble) else None
        if isinstance(answer, Answer) and answer.ok:
            items = answer.value.results
        elif isinstance(answer, Answer):  # refused as a whole: it is what the progress holds
            drop_progress = True
            self._session.notices.warn("heartbeats were refused: %s", answer.refusal)
        else:
            self._session.counters.retried += 1
        for (lease, _), said in zip(batch, items, strict=False):
            lease.in_flight = False
            lease.settle_progress(stored=drop_progress or _is_accepted(said))
            if said is None or said.status not in ACCEPTED:
                self._not_renewed(lease, said, wait_s)
            else:
                lease.renewed(asked_at)
                if said.cancel_requested:
                    lease.cancellation.cancel("plan_failed")
            if lease.ended:
                self._session.outcomes_wait.set()

    def _not_renewed(self, lease: Lease, said: ItemAnswer | None, wait_s: float | None) -> None:
        if said is not None and lose_if_refused(self._session, lease, said):
            return
        lease.bare = True
        again_s = lease.claim.lease_s / BEATS_PER_LEASE * AGAIN_SHARE
        asked_s = min(wait_s or 0, lease.claim.lease_s / BEATS_PER_LEASE)
        lease.beats_at = lease.shows_at = monotonic() + max(again_s, asked_s)


def _item(lease: Lease) -> LeaseItem:
    plan_id, task_id, attempt = lease.key
    # A renewal must not fail again and again for what it shows.
    shown = None if lease.bare and not lease.ended else lease.take_progress()
    lease.in_flight = True
    lease.shows_at = monotonic() + lease.progress_s
    if shown is None:
        return LeaseItem(plan_id, task_id, attempt)
    return LeaseItem(plan_id, task_id, attempt, shown)


def _is_accepted(said: ItemAnswer | None) -> bool:
    return said is not None and said.status in ACCEPTED
