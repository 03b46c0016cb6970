"""One instance in small: a MemoryLog, a board that follows it, and the view that `transact` wants.

The test moves the clock and decides when the board folds; `folded` catches up by itself, as the
projector would.
"""

from collections import Counter
from typing import Any

from projections.board.board import Board
from projections.board.lanes import SharingRule
from projections.recall import Recall
from service.core.answers import OwnerAnswer, Refused
from service.signals.metrics.registry import Metrics
from streams.decider import CommandAccepted, Outcome, transact
from streams.log import Fact, Log, Origin
from streams.plan.commands import Command, OwnerCommand, Submit
from streams.plan.decisions import Duplicate
from streams.plan.events import Submitted, TaskSpec
from streams.plan.state import Plan
from tests.memory_log import MemoryLog


class LogTime:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.at = 1_000.0

    def __call__(self) -> float:
        return self.at


class Counted(Metrics):
    """Metrics that a test can look at."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def count(
        self, name: str, amount: float = 1, *, trace_id: str | None = None, **labels: str
    ) -> None:
        super().count(name, amount, trace_id=trace_id, **labels)
        self.seen[name] += int(amount)


class Instance:
    """`streams.decider.View` and `service.core.queue_context.QueueContext` over a board."""

    def __init__(
        self,
        log: MemoryLog,
        clock: LogTime,
        name: str = "a",
        lag_s: float = 0,
        metrics: Metrics | None = None,
    ) -> None:
        self.log: Log = log
        self.clock = clock
        self.instance_id = name
        self.lag_s = lag_s
        self.metrics: Metrics = metrics or Counted()
        self.board = Board(SharingRule(), name)
        self._latest = 0.0
        self.facts: list[tuple[Fact, str | None]] = []

    @property
    def origin(self) -> Origin:
        return Origin(actor=self.instance_id, instance=self.instance_id)

    def now(self) -> float:
        """Log time as this instance knows it: never ahead of the log's own."""
        return max(self.clock.at - self.lag_s, self._latest)

    def knows(self, plan_id: str) -> Plan | None:
        return self.board.knows(plan_id)

    async def load(self, plan_id: str) -> Plan | None:
        first = await self.log.first_of(plan_id)
        if first is not None:
            await self.folded(first.sequence)
        await Recall(self.log, self.board).on_request(plan_id)
        return self.knows(plan_id)

    async def folded(self, sequence: int) -> str | None:
        while self.board.sequence < sequence:
            await self.fold(at_most=sequence - self.board.sequence)
        return self.why_ignored(sequence)

    def why_ignored(self, sequence: int, /) -> str | None:
        return self.board.ignored.get(sequence)

    async def catch_up(self) -> None:
        await self.fold()

    async def fold(self, at_most: int = 1_000_000) -> None:
        """Catch up with the log, by at most so many facts."""
        for fact in await self.log.scan(self.board.sequence, at_most):
            if fact.sequence <= self.board.sequence:
                continue  # another command of this instance has folded it meanwhile
            self._latest = max(self._latest, fact.at)
            ignored = self.board.apply(fact, self.now())
            if isinstance(fact, Fact):
                self.facts.append((fact, ignored))
        for plan in self.board.drain():
            plan.drain()

    async def say(self, command: Command, **options: Any) -> Outcome:
        return await transact(command, self, self.log, self.origin, **options)

    async def own(self, command: OwnerCommand, origin: Origin) -> OwnerAnswer | Refused:
        outcome = await transact(command, self, self.log, origin)
        assert isinstance(outcome, CommandAccepted | Duplicate), outcome
        return OwnerAnswer(
            status="accepted",
            sequence=outcome.sequence,
            task=None,  # type: ignore[arg-type]
            lease_until=None,
            cancel_requested=False,
        )

    async def submit(self, plan_id: str, *tasks: TaskSpec, **settings: Any) -> Outcome:
        outcome = await self.say(Submit(plan_id=plan_id, plan=Submitted(tasks=tasks, **settings)))
        assert isinstance(outcome, CommandAccepted | Duplicate), outcome
        return outcome
