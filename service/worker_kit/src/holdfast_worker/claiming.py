"""Claiming: asks the server for as many tasks as there are free slots, and starts them."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

import msgspec

from holdfast_worker.held import release_unknown
from holdfast_worker.lease import Claim, Lease
from holdfast_worker.logs import INFO
from holdfast_worker.outcome import Released
from holdfast_worker.running import Runner
from holdfast_worker.session import Session
from holdfast_worker.wire import Answer, HoldfastError, Refused, Trouble, task_path

ANSWER_S = 10.0  # beyond the waiting time, for the answer to come
SHORT_WAIT_S = 1.0  # while another kind waits for the same slot
UNAUTHORIZED = 401
UNREPORTED_PER_SLOT = 4  # attempts whose result waits hold back new claims beyond this


class _Claims(msgspec.Struct, frozen=True):
    claims: list[Claim]


class Claiming:
    """The one claim loop; kinds with different ``lease_s`` take turns in it.

    A lease is claimed only for a free slot, so its handler starts at once.
    """

    def __init__(self, session: Session, runner: Runner) -> None:
        self._session = session
        self._runner = runner
        self._start_in_claim = True  # until a server of an older version refuses it
        self._gather_until = 0.0  # monotonic
        self._running_before = 0  # handlers that ran when those of the last claim began

    async def run(self) -> None:
        """Claim for ever. Raises `Refused` for what repeating cannot mend, such as a bad token."""
        groups = self._groups()
        turn = 0
        while True:
            free = await self._free_slots()
            lease_s = list(groups)[turn % len(groups)]
            await self._claim(free, groups[lease_s], lease_s, alone=len(groups) == 1)
            turn += 1

    def _groups(self) -> dict[float | None, list[str]]:
        groups: dict[float | None, list[str]] = {}
        for each in self._session.handlers.values():
            groups.setdefault(each.lease_s, []).append(each.kind)
        return groups

    async def _free_slots(self) -> int:
        session = self._session
        while True:
            session.changed.clear()
            room = session.slots * UNREPORTED_PER_SLOT - len(session.leases)
            free = min(session.slots - session.running, room, session.limits.batch)
            left_s = self._gather_until - monotonic()
            if free > 0 and (left_s <= 0 or session.running <= self._running_before):
                return free
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s if free > 0 else None):
                    await session.changed.wait()

    def _gather(self, begun: int) -> None:
        """Hold the next claim back for a moment if more handlers have begun than slots are free.

        Short tasks of one claim end together. A claim for the first slot alone would part them:
        from then on each claim brings what the other left over, and the two take turns.
        """
        session = self._session
        if begun > session.slots - session.running:
            self._gather_until = monotonic() + session.limits.gather_s
            self._running_before = session.running - begun

    async def _claim(
        self, limit: int, kinds: list[str], lease_s: float | None, *, alone: bool
    ) -> None:
        session = self._session
        wait_s = session.limits.wait_s if alone else min(SHORT_WAIT_S, session.limits.wait_s)
        body: dict[str, Any] = {"owner": session.owner, "limit": limit, "kinds": kinds}
        body["wait_s"] = wait_s
        if lease_s is not None:
            body["lease_s"] = lease_s
        answer, asked_at = await self._ask(body, wait_s)
        # The server granted after this loop was last idle, so the lease is not older than that.
        granted_at = max(asked_at, session.alive_at)
        claims: list[Claim] = answer.value.claims
        leases = [self._lease(claim, granted_at) for claim in claims]
        if leases:
            await self._begin(leases)

    async def _ask(self, body: dict[str, Any], wait_s: float) -> tuple[Answer, float]:
        """The answer to a claim, and when it was asked for; trouble is waited out."""
        session = self._session
        tries = 0
        while True:
            asked_at = monotonic()
            said = body | {"start": True} if self._start_in_claim else body
            answer = await session.wire.once(
                "POST", "/v1/claims", said, kind=_Claims, within_s=wait_s + ANSWER_S
            )
            if isinstance(answer, Trouble):
                if tries == 0:
                    session.notices.warn(
                        "%s does not answer: %s; trying again until it does (HOLDFAST_URL names "
                        "where Holdfast serves)",
                        session.wire.url,
                        answer.what,
                    )
                session.counters.retried += 1
                await asyncio.sleep(session.wire.pause_s(tries, answer))
                tries += 1
            elif answer.ok:
                if tries:
                    session.notices.say(INFO, "%s answers", session.wire.url)
                    await self._give_back_unknown(answer)
                return answer, asked_at
            elif self._start_in_claim and "start" in answer.refusal.detail:
                self._start_in_claim = False
            else:
                raise _advised(answer.refusal)

    async def _give_back_unknown(self, answer: Answer) -> None:
        """An earlier try of this claim may have been granted, and its answer lost."""
        session = self._session
        granted: list[Claim] = answer.value.claims
        keys = {(each.plan_id, each.task_id, each.attempt) for each in granted}
        until = monotonic() + ANSWER_S
        try:
            await release_unknown(session, "claim answer lost", lambda: until, keys)
        except HoldfastError as error:
            session.notices.warn("leases whose claim was lost are left to expire: %s", error)

    def give_back_unstarted(self) -> None:
        """Release what was claimed and not started, once no more is claimed."""
        for lease in list(self._session.leases.values()):
            if not lease.begun and not lease.ended:
                self._not_started(lease, "draining")

    def _not_started(self, lease: Lease, reason: str) -> None:
        lease.handler_ended = True
        self._session.running -= 1
        self._session.report(lease, Released(reason=reason))
        self._session.changed.set()

    def _lease(self, claim: Claim, granted_at: float) -> Lease:
        session = self._session
        handler = session.handlers[claim.kind]
        lease = Lease(claim, handler, granted_at, session.limits.progress_s)
        session.leases[lease.key] = lease
        session.running += 1
        session.counters.claimed += 1
        return lease

    async def _begin(self, leases: Sequence[Lease]) -> None:
        """Run the handlers; those whose claim does not count as a start report one first."""
        self._gather(len(leases))
        self._runner.start([lease for lease in leases if lease.claim.started])
        others = [lease for lease in leases if not lease.claim.started]
        started = await asyncio.gather(*map(self._started, others))
        self._runner.start([lease for lease, ok in zip(others, started, strict=True) if ok])

    async def _started(self, lease: Lease) -> bool:
        """Report that the work begins; the handler may run only if that was accepted."""
        session = self._session
        plan_id, task_id, attempt = lease.key
        body = {"owner": session.owner, "attempt": attempt}
        path = task_path(plan_id, task_id, "start")
        try:
            answer = await session.wire.ask("POST", path, body, until=lambda: lease.fence_at)
        except HoldfastError as error:
            session.notices.warn("%s/%s#%d: not started: %s", *lease.key, error)
            self._not_started(lease, "not started")
            return False
        if not answer.ok:
            lease.handler_ended = True
            session.running -= 1
            session.lose(lease)
        return answer.ok


def _advised(refusal: Refused) -> Refused:
    if refusal.status != UNAUTHORIZED:
        return refusal
    detail = f"{refusal.detail}; set HOLDFAST_TOKEN to the token of a worker"
    return Refused(refusal.status, refusal.code, detail)
