"""Who works here: the owners seen in the last hour, what they asked for, and what was refused.

Leases and signs of life come from the log, so every instance knows them; claims asked for and
writes refused are those of this instance.
"""

from collections import deque
from collections.abc import Collection

import msgspec

from projections.board.board import Board
from projections.listeners import Batch
from projections.read_models.views import Moment, moment, moment_or_none
from streams.plan.commands import OwnerCommand
from streams.plan.events import TaskEvent
from streams.plan.state import Plan, Task

SEEN_S = 3_600.0
MOST_OWNERS = 10_000
MOST_KINDS = 50  # remembered per owner
MOST_LEASES = 20  # shown per owner
MOST_REFUSALS = 10


class HeldLease(msgspec.Struct, frozen=True, kw_only=True):
    """A lease that an owner holds, live or expired."""

    plan_id: str
    task_id: str
    kind: str
    attempt: int
    lease_until: Moment | None


class RefusedWrite(msgspec.Struct, frozen=True, kw_only=True):
    """A write that this instance refused because owner or attempt no longer matched."""

    at: Moment
    operation: str
    plan_id: str
    task_id: str
    attempt: int


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """One owner. ``kinds`` null: it asks for any; ``asks`` counts its claims here in its life."""

    owner: str
    last_seen_at: Moment
    last_sign_of_life: Moment | None
    last_asked_at: Moment | None
    asks: int
    kinds: tuple[str, ...] | None
    leases: list[HeldLease]
    leases_held: int
    refused: int
    last_refusals: tuple[RefusedWrite, ...]


class _Seen:
    """What is remembered of one owner; times are log times."""

    __slots__ = (
        "any_kind", "asked_at", "asks", "kinds", "life_at", "refusals", "refused", "refused_at",
    )  # fmt: skip

    def __init__(self) -> None:
        self.life_at = 0.0
        self.asked_at = 0.0
        self.asks = 0
        self.any_kind = False
        self.kinds: dict[str, None] = {}
        self.refused = 0
        self.refused_at = 0.0
        self.refusals: deque[RefusedWrite] = deque(maxlen=MOST_REFUSALS)

    @property
    def at(self) -> float:
        return max(self.life_at, self.asked_at, self.refused_at)


class Workers:
    """The owners that were seen in the last hour, at most `MOST_OWNERS`; listens to the fold."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def folded(self, batch: Batch) -> None:
        """An owner's fact that counts is a sign of life."""
        last = {
            fact.event.owner: fact.at for fact in batch.counted if isinstance(fact.event, TaskEvent)
        }
        for owner, at in last.items():
            (self._seen.get(owner) or self._of(owner, at)).life_at = at

    def asked(self, owner: str, kinds: Collection[str] | None, now: float) -> None:
        """An owner asks for tasks at log time ``now``."""
        seen = self._of(owner, now)
        seen.asked_at = now
        seen.asks += 1
        if kinds is None:
            seen.any_kind = True
            return
        for kind in kinds:
            if len(seen.kinds) < MOST_KINDS:
                seen.kinds[kind] = None

    def refused(self, command: OwnerCommand, now: float) -> None:
        """A write of an owner was refused at log time ``now``."""
        seen = self._of(command.owner, now)
        seen.refused += 1
        seen.refused_at = now
        refusal = RefusedWrite(
            at=moment(now),
            operation=type(command).__name__.lower(),
            plan_id=command.plan_id,
            task_id=command.task_id,
            attempt=command.attempt,
        )
        seen.refusals.append(refusal)

    def shown(self, board: Board, now: float, limit: int) -> tuple[list[WorkerView], int]:
        """The ``limit`` owners seen last, newest first, and how many there are in all."""
        held: dict[str, list[tuple[Plan, Task]]] = {}
        for plan, task in board.places.running():
            held.setdefault(task.owner or "", []).append((plan, task))
        recent = [
            (name, seen)
            for name, seen in self._seen.items()
            if name in held or now - seen.at <= SEEN_S
        ]
        recent.sort(key=lambda each: -each[1].at)
        views = [_view(name, seen, held.get(name, [])) for name, seen in recent[:limit]]
        return views, len(recent)

    def _of(self, owner: str, now: float) -> _Seen:
        seen = self._seen.get(owner)
        if seen is None:
            if len(self._seen) >= MOST_OWNERS:
                self._forget(now)
            seen = self._seen[owner] = _Seen()
        return seen

    def _forget(self, now: float) -> None:
        """Forget who was not seen for an hour; if that is not enough, the older half."""
        kept = {name: seen for name, seen in self._seen.items() if now - seen.at <= SEEN_S}
        if len(kept) > MOST_OWNERS // 2:
            newest = sorted(kept.items(), key=lambda each: -each[1].at)[: MOST_OWNERS // 2]
            kept = dict(newest)
        self._seen = kept


def _view(owner: str, seen: _Seen, held: list[tuple[Plan, Task]]) -> WorkerView:
    return WorkerView(
        owner=owner,
        last_seen_at=moment(seen.at),
        last_sign_of_life=moment_or_none(seen.life_at or None),
        last_asked_at=moment_or_none(seen.asked_at or None),
        asks=seen.asks,
        kinds=None if seen.any_kind else tuple(seen.kinds),
        leases=[_lease(plan, task) for plan, task in held[:MOST_LEASES]],
        leases_held=len(held),
        refused=seen.refused,
        last_refusals=tuple(seen.refusals),
    )


def _lease(plan: Plan, task: Task) -> HeldLease:
    return HeldLease(
        plan_id=plan.plan_id,
        task_id=task.spec.id,
        kind=task.spec.kind,
        attempt=task.attempt,
        lease_until=moment_or_none(task.lease_until),
    )
