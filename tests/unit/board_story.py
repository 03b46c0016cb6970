"""A log in a list, boards that fold it, and a clock that the test moves.

Every board is one instance; `Yard.claim` does what a claim queue does (pick, decide, append, give
back), and `Yard.start_claims` does the first half only, so that claims of several boards race.
"""

from collections.abc import Iterable
from typing import Any

from projections.board.board import Board
from projections.board.lanes import Pick, SharingRule
from projections.board.outputs import MAX_BYTES
from projections.board.recent import RecentLimits
from streams.log import BadFact, Fact, Origin
from streams.plan import commands
from streams.plan.decide import decide
from streams.plan.decisions import Accept, Decision
from streams.plan.dependencies import settle
from streams.plan.events import Event, Submitted, TaskSpec
from streams.plan.state import Plan
from streams.subjects import subject_of

START_AT = 1_000.0


class Yard:
    """One log and the boards of its instances, named a, b, c and so on."""

    def __init__(
        self,
        boards: int = 1,
        *,
        recent: RecentLimits | None = None,
        output_bytes: int = MAX_BYTES,
        **rule: Any,
    ) -> None:
        self.at = START_AT
        self.log: list[Fact | BadFact] = []
        self.last: dict[str, int] = {}
        self.boards = [
            Board(SharingRule(**rule), name, recent=recent, output_bytes=output_bytes)
            for name in "abcdefgh"[:boards]
        ]
        self.conflicts = 0

    @property
    def board(self) -> Board:
        return self.boards[0]

    def later(self, seconds: float) -> None:
        self.at += seconds

    # -- writing ----------------------------------------------------------------------------

    def write(self, plan_id: str, task_id: str | None, *events: Event, instance: str = "") -> None:
        """Append without a decision, and fold everywhere."""
        for event in events:
            self.append(plan_id, task_id, event, instance)
        self.fold()

    def append(self, plan_id: str, task_id: str | None, event: Event, instance: str = "") -> None:
        sequence = len(self.log) + 1
        self.last[subject_of(plan_id, task_id)] = sequence
        self.log.append(
            Fact(sequence, self.at, plan_id, task_id, event, origin=Origin(instance=instance))
        )

    def spoil(self, plan_id: str, task_id: str | None = None) -> None:
        """An unreadable message."""
        subject = subject_of(plan_id, task_id)
        self.last[subject] = len(self.log) + 1
        self.log.append(BadFact(len(self.log) + 1, self.at, subject, "garbage"))
        self.fold()

    def fold(self, boards: Iterable[Board] | None = None, up_to: int | None = None) -> None:
        for board in self.boards if boards is None else boards:
            for fact in self.log[board.sequence : up_to]:
                board.apply(fact, self.at)
            for plan in board.drain():
                plan.drain()

    def submit(self, plan_id: str, *tasks: TaskSpec, **settings: Any) -> Plan:
        self.write(plan_id, None, settle(Submitted(tasks=tasks, **settings)))
        return self.plan(plan_id)

    def plan(self, plan_id: str) -> Plan:
        plan = self.board.knows(plan_id)
        assert plan is not None
        return plan

    def say(self, command: commands.Command) -> Decision:
        """Decide on the first board, append what it leads to, fold everywhere."""
        decision = decide(command, self.board.knows(command.plan_id), self.at)
        if isinstance(decision, Accept):
            self.write(command.plan_id, decision.task_id, *decision.events)
        return decision

    def own(self, kind: type[commands.OwnerCommand], pick: Pick, **fields: Any) -> Decision:
        """The current owner's word about what was picked."""
        task = pick.seat.task
        fence = {"owner": task.owner or "", "attempt": task.attempt}
        return self.say(
            kind(plan_id=pick.seat.plan.plan_id, task_id=task.spec.id, **fence, **fields)
        )

    def complete(self, *picks: Pick) -> None:
        for pick in picks:
            assert isinstance(self.own(commands.Complete, pick), Accept)

    def finish(self, plan_id: str) -> None:
        assert isinstance(self.say(commands.Finish(plan_id=plan_id)), Accept)

    # -- claiming ---------------------------------------------------------------------------

    def pick(self, limit: int, kinds: tuple[str, ...] | None = None, board: int = 0) -> list[Pick]:
        return self.boards[board].places.pick(limit, kinds, self.at)

    def claim(self, limit: int, kinds: tuple[str, ...] | None = None, board: int = 0) -> list[Pick]:
        """Pick and claim; answers what was claimed."""
        return self.end_claims(self.start_claims(limit, kinds, board), board)

    def start_claims(
        self, limit: int, kinds: tuple[str, ...] | None = None, board: int = 0
    ) -> list[tuple[Pick, Decision]]:
        """Pick and decide; the appends are on their way."""
        return [(pick, self._decide(pick, board)) for pick in self.pick(limit, kinds, board)]

    def _decide(self, pick: Pick, board: int) -> Decision:
        plan, task = pick.seat.plan, pick.seat.task
        command = commands.Claim(
            plan_id=plan.plan_id,
            task_id=task.spec.id,
            owner=f"w-{self.boards[board].peers.instance_id}",
            start=True,
        )
        return decide(command, plan, self.at)

    def end_claims(self, claims: list[tuple[Pick, Decision]], board: int = 0) -> list[Pick]:
        """The appends arrive at the log, which refuses those that lost their race."""
        won: list[Pick] = []
        instance = self.boards[board].peers.instance_id
        for pick, decision in claims:
            assert isinstance(decision, Accept), decision
            plan_id = pick.seat.plan.plan_id
            if self.last.get(subject_of(plan_id, decision.task_id), 0) != decision.expected:
                self.conflicts += 1
                continue
            for event in decision.events:
                self.append(plan_id, decision.task_id, event, instance)
            won.append(pick)
        self.fold()
        for pick, _ in claims:
            self.boards[board].places.give_back(pick.seat, self.at)
        return won


def names(picks: Iterable[Pick]) -> list[str]:
    """The ids of the tasks picked, in order."""
    return [pick.seat.task.spec.id for pick in picks]
