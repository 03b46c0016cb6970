"""Tells a plan's story in a test: ``given(...).when(...).then(...)``, with time moved by the test.

Commands go through the real `decide`, accepted events through the real `evolve`; sequences are
numbered as a log would. After each step the laws of `plan_laws` are checked, so every story is also
a test of the counters.
"""

from collections.abc import Callable, Iterable
from typing import Any, Self

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from streams.log import Fact
from streams.plan import commands
from streams.plan.commands import Command
from streams.plan.decide import decide
from streams.plan.decisions import Accept, Decision, Duplicate, GuardReject
from streams.plan.events import Event, Submitted, TaskSpec, Verdict
from streams.plan.evolve import begin, evolve, mark_unreadable
from streams.plan.outputs import output_at_hand
from streams.plan.state import Plan, Task
from tests.unit.plan_laws import check_plan

PLAN = "p"
START_AT = 1_000.0


def task(id: str, *, after: str = "", kind: str = "echo", **settings: Any) -> TaskSpec:
    """A task; ``after`` lists its dependencies, separated by spaces; ``input`` is JSON."""
    if "input" in settings:
        settings["input"] = Raw(settings["input"])
    return TaskSpec(id=id, kind=kind, depends_on=tuple(after.split()), **settings)


def critic(id: str, *, of: str, **settings: Any) -> TaskSpec:
    """A critic of one target."""
    return task(id, type="critic", target=of, **settings)


class Story:
    """One plan, its log and the answers it gave; steps move it, ``then`` looks at it."""

    def __init__(self, *tasks: TaskSpec, **settings: Any) -> None:
        self.at = START_AT
        self.sequence = 0
        self.facts: list[Fact] = []
        self.ignored: dict[int, str] = {}
        self.answers: list[Decision] = []
        self._plan: Plan | None = None
        self.say(commands.Submit(plan_id=PLAN, plan=Submitted(tasks=tasks, **settings)))

    @property
    def plan(self) -> Plan:
        assert self._plan is not None, self.answer
        return self._plan

    @property
    def answer(self) -> Decision:
        """What the last command was answered."""
        return self.answers[-1]

    def task(self, task_id: str) -> Task:
        return self.plan.tasks[task_id]

    def when(self, *steps: "Step") -> Self:
        for step in steps:
            step(self)
        return self

    def say(self, command: Command) -> Decision:
        decision = decide(command, self._plan, self.at)
        self.answers.append(decision)
        if isinstance(decision, Accept):
            self._check_expectation(decision)
            for event in decision.events:
                assert self.write(decision.task_id, event) is None, "accepted, then ignored"
        return decision

    def write(self, task_id: str | None, event: Event) -> str | None:
        """Put a fact in the log and fold it; answers why it was ignored."""
        self.sequence += 1
        fact = Fact(self.sequence, self.at, PLAN, task_id, event)
        self.facts.append(fact)
        ignored = None
        if self._plan is None:
            assert isinstance(event, Submitted)
            self._plan = begin(PLAN, event, sequence=fact.sequence, at=fact.at)
        else:
            ignored = evolve(self._plan, task_id, event, sequence=fact.sequence, at=fact.at)
        if ignored is not None:
            self.ignored[fact.sequence] = ignored
        check_plan(self._plan)
        return ignored

    def _check_expectation(self, decision: Accept) -> None:
        """The expectation is always the last message of exactly this subject."""
        on_it = [fact.sequence for fact in self.facts if fact.task_id == decision.task_id]
        assert decision.expected == (on_it[-1] if on_it else 0)

    # -- looking ----------------------------------------------------------------------------

    def then(self, *, plan: str | None = None, **tasks: str) -> Self:
        """Check the status of the plan and of tasks."""
        seen: dict[str, str] = {task_id: self.task(task_id).status for task_id in tasks}
        assert seen == tasks, f"seen {seen}, not {tasks}"
        if plan is not None:
            assert self.plan.status == plan, f"the plan is {self.plan.status}"
        return self

    def has(self, task_id: str, **fields: Any) -> Self:
        """Check fields of one task."""
        task = self.task(task_id)
        seen = {name: _plain(_field(task, name)) for name in fields}
        assert seen == fields, f"{task_id} has {seen}, not {fields}"
        return self

    def answered(self, kind: type | tuple[type, ...], **fields: Any) -> Self:
        """Check the last answer's type and fields."""
        assert isinstance(self.answer, kind), self.answer
        assert {name: getattr(self.answer, name) for name in fields} == fields, self.answer
        return self

    def duplicate(self) -> Self:
        return self.answered(Duplicate)

    def guard_rejected(self, status: str, owner: str | None, attempt: int) -> Self:
        """Check that the last command was fenced off, and with which answer."""
        self.answered(GuardReject)
        assert isinstance(self.answer, GuardReject)
        current = self.answer.current
        assert (current.status, current.owner, current.attempt) == (status, owner, attempt)
        return self

    def wrote(self, *names: str) -> Self:
        """Check the types of the last facts in the log."""
        tail = [type(fact.event).__name__ for fact in self.facts[-len(names) :]] if names else []
        assert tail == list(names), tail
        return self


def _field(task: Task, name: str) -> object:
    return output_at_hand(task) if name == "output" else getattr(task, name)


def _plain(value: object) -> object:
    return bytes(value) if isinstance(value, Raw) else value


Step = Callable[[Story], object]


def given(*tasks: TaskSpec, **settings: Any) -> Story:
    """A plan of these tasks, just submitted."""
    return Story(*tasks, **settings)


def later(seconds: float) -> Step:
    """Let log time pass."""

    def step(story: Story) -> None:
        story.at += seconds

    return step


def every(*steps: Step) -> Step:
    """Several steps as one."""
    return lambda story: story.when(*steps)


def submit(*tasks: TaskSpec, **settings: Any) -> Step:
    """A plan under the same id, once more."""
    plan = Submitted(tasks=tasks, **settings)
    return lambda story: story.say(commands.Submit(plan_id=PLAN, plan=plan))


def claim(task_id: str, by: str = "w1", lease_s: float | None = None, **fields: Any) -> Step:
    return lambda story: story.say(
        commands.Claim(plan_id=PLAN, task_id=task_id, owner=by, lease_s=lease_s, **fields)
    )


def _owned(
    kind: type[commands.OwnerCommand],
    task_id: str,
    *,
    by: str | None = None,
    attempt: int | None = None,
    **fields: Any,
) -> Step:
    """An owner's word; owner and attempt are the current ones unless given."""

    def step(story: Story) -> None:
        task = story.task(task_id)
        fence = {"owner": by or task.owner or "w1", "attempt": attempt or task.attempt}
        story.say(kind(plan_id=PLAN, task_id=task_id, **fence, **fields))

    return step


def start(task_id: str, **fields: Any) -> Step:
    return _owned(commands.Start, task_id, **fields)


def work_on(task_id: str, **fields: Any) -> Step:
    """Claim and start."""
    return claim(task_id, start=True, **fields)


def heartbeat(task_id: str, **fields: Any) -> Step:
    return _owned(commands.Heartbeat, task_id, **fields)


def progress(task_id: str, data: bytes = b"1", **fields: Any) -> Step:
    return _owned(commands.Progress, task_id, data=Raw(data), **fields)


def checkpoint(task_id: str, key: str, value: bytes = b"1", **fields: Any) -> Step:
    return _owned(commands.Checkpoint, task_id, key=key, value=Raw(value), **fields)


def complete(task_id: str, output: bytes = b'"done"', **fields: Any) -> Step:
    return _owned(commands.Complete, task_id, output=Raw(output), **fields)


def fail(task_id: str, error_type: str = "boom", **fields: Any) -> Step:
    return _owned(commands.Fail, task_id, error_type=error_type, **fields)


def release(task_id: str, **fields: Any) -> Step:
    return _owned(commands.Release, task_id, **fields)


def accept(task_id: str, **fields: Any) -> Step:
    """A critic is content."""
    return complete(task_id, verdict=Verdict(pass_=True), **fields)


def reject(task_id: str, feedback: bytes = b'"again"', **fields: Any) -> Step:
    """A critic wants another try."""
    return complete(task_id, verdict=Verdict(pass_=False, feedback=Raw(feedback)), **fields)


def expire(task_id: str) -> Step:
    return lambda story: story.say(commands.Expire(plan_id=PLAN, task_id=task_id))


def run(task_id: str, **fields: Any) -> Step:
    """Claim and complete."""
    return every(claim(task_id), complete(task_id, **fields))


def break_down(task_id: str, **fields: Any) -> Step:
    """Claim and fail for good."""
    return every(claim(task_id), fail(task_id, retryable=False, **fields))


def operator(kind: type[Command], **fields: Any) -> Step:
    return lambda story: story.say(kind(plan_id=PLAN, **fields))


pause = operator(commands.Pause)
resume = operator(commands.Resume)
cancel = operator(commands.Cancel)
finish = operator(commands.Finish)


def overrun(task_id: str) -> Step:
    return operator(commands.Overrun, task_id=task_id)


def retry(task_id: str, **fields: Any) -> Step:
    return operator(commands.Retry, task_id=task_id, **fields)


retry_all = operator(commands.RetryAll)


def published(task_id: str | None, event: Event) -> Step:
    """Put a fact in the log by hand."""
    return lambda story: story.write(task_id, event)


def unreadable(task_id: str | None) -> Step:
    """Put an unreadable message in the log."""

    def step(story: Story) -> None:
        story.sequence += 1
        mark_unreadable(story.plan, task_id, sequence=story.sequence)

    return step


def refolded(facts: Iterable[Fact]) -> Plan:
    """The plan as another instance folds it from the beginning."""
    plan: Plan | None = None
    for fact in facts:
        if plan is None:
            assert isinstance(fact.event, Submitted)
            plan = begin(fact.plan_id, fact.event, sequence=fact.sequence, at=fact.at)
        else:
            evolve(plan, fact.task_id, fact.event, sequence=fact.sequence, at=fact.at)
    assert plan is not None
    return plan


def resubmitted(story: Story, **changes: Any) -> Decision:
    """The same plan said again, with changes."""
    spec = replace(story.plan.spec, **changes)
    again = msgspec.json.decode(msgspec.json.encode(spec), type=Submitted)
    return story.say(commands.Submit(plan_id=PLAN, plan=again))
