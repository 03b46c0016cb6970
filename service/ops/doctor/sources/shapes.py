"""A board as evidence, a live one as well as one that was folded offline."""

import heapq
from collections import Counter
from collections.abc import Callable, Generator

from projections.board.board import Board
from service.ops.doctor.evidence import ExpiredLease, Waiting
from streams.plan.state import Plan, Task

MOST_LEASES = 10


def waiting_kinds(
    board: Board, now: float, last_asked: Callable[[str], float | None] = lambda _: None
) -> Generator[None, None, tuple[Waiting, ...]]:
    """What waits to be claimed, by kind, the longest waiting kind first.

    A step for each kind (`streams.steps`): there may be thousands. ``last_asked`` tells when a
    worker asked for a kind (log time); None: never.
    """
    expired = Counter(task.spec.kind for _, task in board.places.expired())
    kinds: list[Waiting] = []
    backlog = yield from board.places.backlog_by_kind()
    for kind, (tasks, oldest) in backlog.items():
        asked = last_asked(kind)
        kinds.append(
            Waiting(
                kind=kind,
                tasks=tasks,
                oldest_age_s=max(now - oldest.since, 0.0),
                plan_id=oldest.plan.plan_id,
                task_id=oldest.task.spec.id,
                asked_s=None if asked is None else max(now - asked, 0.0),
                running=board.places.running_kinds[kind] - expired[kind],
            )
        )
        yield
    return tuple(sorted(kinds, key=lambda each: -each.oldest_age_s))


def expired_leases(board: Board, now: float) -> tuple[ExpiredLease, ...]:
    """The longest expired leases, as of the board's last `advance`."""
    oldest = heapq.nsmallest(
        MOST_LEASES, board.places.expired(), key=lambda each: each[1].lease_until or now
    )
    return tuple(_expired_lease(plan, task, now) for plan, task in oldest)


def _expired_lease(plan: Plan, task: Task, now: float) -> ExpiredLease:
    until = task.lease_until or now
    return ExpiredLease(
        plan_id=plan.plan_id,
        task_id=task.spec.id,
        kind=task.spec.kind,
        owner=task.owner or "",
        attempt=task.attempt,
        claim_sequence=task.claimed_sequence,
        lease_s=task.lease_s,
        lease_until=until,
        expired_for_s=max(now - until, 0.0),
        renewed_at=until - task.lease_s,
        last_sequence=task.sequence,
        lost=task.lost,
        max_lost_leases=task.spec.max_lost_leases,
    )
