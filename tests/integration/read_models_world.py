"""Random but lawful histories, and a projector that can crash, to try the read models with."""

from collections.abc import Sequence
from pathlib import Path

from msgspec import Raw

from projections.read_models import plans, task_views
from projections.read_models.database import Database
from projections.read_models.pending import Pending
from projections.read_models.restore import open_read_models, restore
from projections.read_models.views import PlanView, TaskView
from streams.log import Fact, Origin
from streams.plan import commands
from streams.plan.decide import decide
from streams.plan.decisions import Accept
from streams.plan.events import Event, Heartbeat, Submitted, TaskSpec, TokenUsage, Verdict
from streams.plan.evolve import begin, evolve
from streams.plan.state import Plan, Task
from streams.traceparent import of_attempt


async def plan_of(database: Database, plan_id: str) -> PlanView | None:
    """The plan with this id."""
    return await database.run(lambda connection: plans.found(connection, plan_id))


async def tasks_of(database: Database, plan_id: str) -> list[TaskView]:
    """All tasks of a plan, in the order submitted; empty if there is no such plan."""
    detail = await task_views.plan_detail(database, plan_id)
    return [] if detail is None else detail[1]


PLANS = ("p1", "p2", "p3")
TASKS = ("a", "b", "c", "d")
OWNERS = ("w1", "w2")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def submitted(name: str = "") -> Submitted:
    """Four tasks: a worker, its critic, one that goes on without, one that waits for all."""
    return Submitted(
        name=name,
        labels={"team": name, "where": "here"},
        context=Raw(b'{"k": [1, 2]}'),
        tasks=(
            TaskSpec(id="a", kind="echo", max_retries=1, input=Raw(b'{"x": 1}'), lease_s=3),
            TaskSpec(id="b", kind="judge", type="critic", target="a", depends_on=("a",)),
            TaskSpec(id="c", kind="echo", on_failure="continue", max_retries=0),
            TaskSpec(id="d", kind="sleep", depends_on=("a", "c"), max_lost_leases=1, lease_s=2),
        ),
    )


class History:
    """A log that is written by commands chosen by numbers; every number leads somewhere."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.plans: dict[str, Plan] = {}
        self.at = 1_000.0

    def write(self, plan_id: str, task_id: str | None, event: Event) -> None:
        """Append one fact, lawful or not, and fold it."""
        origin = Origin(traceparent=of_attempt(TRACE, plan_id, "", len(self.facts)))
        fact = Fact(len(self.facts) + 1, self.at, plan_id, task_id, event, "", origin)
        self.facts.append(fact)
        fold(self.plans, fact)

    def say(self, command: commands.Command) -> None:
        """Append what the command leads to, if it is accepted."""
        plan = self.plans.get(command.plan_id)
        match decide(command, plan, self.at):
            case Accept(task_id=task_id, events=events):
                for event in events:
                    self.write(command.plan_id, task_id, event)
            case _:
                pass

    def choose(self, number: int) -> None:
        """Let the number say what happens next."""
        number, kind = divmod(number, 16)
        number, which = divmod(number, len(PLANS))
        number, task = divmod(number, len(TASKS))
        number, owner = divmod(number, len(OWNERS))
        self.at += (0.5, 4.0, 30.0)[number % 3]
        plan_id, task_id = PLANS[which], TASKS[task]
        if plan_id not in self.plans:
            self.say(commands.Submit(plan_id=plan_id, plan=submitted(plan_id)))
        elif kind < 5:
            self._about_plan(kind, plan_id, task_id)
        else:
            self._about_task(kind, plan_id, task_id, OWNERS[owner])

    def _about_plan(self, kind: int, plan_id: str, task_id: str) -> None:
        match kind:
            case 0:
                self.say(commands.Pause(plan_id=plan_id))
            case 1:
                self.say(commands.Resume(plan_id=plan_id))
            case 2:
                fresh = self.at % 2 < 1
                self.say(commands.Retry(plan_id=plan_id, task_id=task_id, fresh=fresh))
            case 3:
                self.say(commands.Finish(plan_id=plan_id))
            case _:
                self.write(plan_id, task_id, Heartbeat(owner="ghost", attempt=9, lease_s=1))

    def _about_task(self, kind: int, plan_id: str, task_id: str, owner: str) -> None:
        task = self.plans[plan_id].tasks[task_id]
        if task.status != "RUNNING" or kind < 7:
            self.say(commands.Claim(plan_id=plan_id, task_id=task_id, owner=owner))
            return
        for command in self._owners_words(kind, plan_id, task):
            self.say(command)

    def _owners_words(self, kind: int, plan_id: str, task: Task) -> list[commands.Command]:
        words = {
            "plan_id": plan_id,
            "task_id": task.spec.id,
            "owner": task.owner or "",
            "attempt": task.attempt,
        }
        critic = task.spec.type == "critic"
        verdict = Verdict(pass_=kind == 15, feedback=Raw(b'["again"]')) if critic else None
        match kind:
            case 7:
                return [commands.Start(**words)]
            case 8:
                large = Raw(b'"' + b"y" * 300 + b'"')
                return [
                    commands.Heartbeat(progress=Raw(b"1"), **words),
                    commands.Checkpoint(key=f"k{task.attempt % 2}", value=large, **words),
                    commands.Checkpoint(key="n", value=Raw(b"%d" % task.attempt), **words),
                ]
            case 9:
                return [commands.Release(reason="drain", **words)]
            case 10:
                return [commands.Expire(plan_id=plan_id, task_id=task.spec.id)]
            case 11:
                return [commands.Fail(error_type="timeout", retryable=False, **words)]
            case 12:
                return [commands.Fail(error_type="boom", error_message="ü\0", **words)]
            case _:
                usage = TokenUsage(input_tokens=2**63 - 1, output_tokens=1)
                large = b'"' + b"x" * 300 + b'"'
                return [
                    commands.Complete(
                        output=Raw(large if kind == 14 else b'{"n":  1}'),
                        verdict=verdict,
                        model_name="m1",
                        token_usage=usage,
                        **words,
                    )
                ]


def fold(plans: dict[str, Plan], fact: Fact) -> Plan:
    """Fold one fact into the plans; answers the plan it was about."""
    if isinstance(fact.event, Submitted) and fact.plan_id not in plans:
        plan = begin(
            fact.plan_id,
            fact.event,
            sequence=fact.sequence,
            at=fact.at,
            traceparent=fact.origin.traceparent,
        )
        plans[fact.plan_id] = plan
        return plan
    plan = plans[fact.plan_id]
    evolve(plan, fact.task_id, fact.event, sequence=fact.sequence, at=fact.at)
    return plan


class CrashingProjector:
    """Folds a history into a file; a crash loses all that was not flushed."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.plans: dict[str, Plan] = {}
        self.pending = Pending(0, "e")

    def fold(self, facts: Sequence[Fact], history: Sequence[Fact]) -> None:
        """Fold a batch. Finished plans that are not in memory are folded anew from ``history``."""
        changed: dict[str, Plan] = {}
        for fact in facts:
            if not isinstance(fact.event, Submitted) and fact.plan_id not in self.plans:
                self._recall(fact, history)
            changed[fact.plan_id] = fold(self.plans, fact)
        for plan in changed.values():
            self.pending.add(plan)
        self.pending.advance(facts[-1].sequence)

    def _recall(self, fact: Fact, history: Sequence[Fact]) -> None:
        for earlier in history[: fact.sequence - 1]:
            if earlier.plan_id == fact.plan_id:
                fold(self.plans, earlier)
        self.plans[fact.plan_id].drain()

    async def flush(self) -> None:
        await self.pending.flush(self.database)

    async def crash(self) -> int:
        """Start again from the file; answers the sequence from which facts must be folded again."""
        checkpoint = await self.database.checkpoint()
        sequence = checkpoint.sequence if checkpoint else 0
        self.plans = {plan.plan_id: plan for plan in await restore(self.database)}
        self.pending = Pending(sequence, "e")
        return sequence


async def folded_into(path: Path, facts: Sequence[Fact]) -> Database:
    """A file with all of ``facts`` in it, written by one flush."""
    database = await open_read_models(path)
    projector = CrashingProjector(database)
    if facts:
        projector.fold(facts, facts)
        await projector.flush()
    return database
