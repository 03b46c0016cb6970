"""Asks *why* of a running instance: brings the plan and its surroundings together."""

from collections import Counter

from msgspec.structs import replace

from service.core.core import Core
from service.core.why.plans import why_plan
from service.core.why.reasons import Surroundings, Why
from service.core.why.tasks import why_task


async def why(core: Core, plan_id: str, task_id: str | None = None) -> Why | None:
    """Why the plan, or one task of it, does not run; None if there is none. Raises LogUnavailable.

    A plan that is not in memory is folded from the log.
    """
    plan = await core.load(plan_id)
    if plan is None:
        await core.newest()  # another instance may just have written it
        plan = await core.load(plan_id)
    if plan is None:
        return None
    around = _around(core)
    if task_id is None:
        answer = why_plan(plan, around)
    else:
        task = plan.tasks.get(task_id)
        if task is None:
            return None
        answer = why_task(plan, task, around)
    return replace(answer, sequence=core.board.sequence)


def _live_leases(core: Core) -> Counter[str]:
    """How many tasks of each kind run under a lease that has not expired."""
    live = Counter(core.board.places.running_kinds)
    live.subtract(task.spec.kind for _, task in core.board.places.expired())
    return live


def _around(core: Core) -> Surroundings:
    board, now = core.board, core.now()
    board.places.advance(now)
    return Surroundings(
        now=now,
        asked=lambda kind: _latest(
            core.claim_queue.last_asked(kind), board.peers.last_claim_of(kind)
        ),
        known_kinds=core.claim_queue.demand.kinds(),
        running=_live_leases(core),
        standing=board.places.standing,
    )


def _latest(*times: float | None) -> float | None:
    return max((at for at in times if at is not None), default=None)
