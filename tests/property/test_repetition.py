"""Saying it twice is saying it once: a repeated command changes the world once, in any state."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from streams.plan import commands
from streams.plan.commands import Command
from streams.plan.decisions import Accept, Decision, Duplicate, GuardReject, NotAllowed
from streams.plan.events import Released, Submitted, Verdict
from tests.property.dice import MAX_TASKS, effort, plans
from tests.unit.plan_laws import portrait
from tests.unit.plan_story import PLAN, Story

CHATTER = commands.Heartbeat | commands.Progress
DICE = st.lists(st.integers(0, 10_000), min_size=1, max_size=40)


def commands_for(story: Story, dice: int) -> list[Command]:
    """Everything that could be said about one task, and about the plan."""
    names = sorted(story.plan.tasks)
    task = story.task(names[dice % len(names)])
    about: Any = {"plan_id": PLAN, "task_id": task.spec.id}
    fence: Any = {**about, "owner": task.owner or "w1", "attempt": task.attempt or 1}
    verdict = Verdict(pass_=dice % 3 > 0) if task.spec.type == "critic" else None
    said: list[Command] = [
        commands.Claim(owner=f"w{dice % 2}", **about),
        commands.Start(**fence),
        commands.Complete(verdict=verdict, **fence),
        commands.Fail(error_type="x", retry_in_s=0, **fence),
        commands.Fail(error_type="timeout", retryable=dice % 2 == 0, **fence),
        commands.Release(**fence),
        commands.Heartbeat(**fence),
        commands.Heartbeat(progress=Raw(b"1"), **fence),
        commands.Progress(data=Raw(b"1"), **fence),
        commands.Expire(**about),
        commands.Retry(**about),
        commands.Pause(plan_id=PLAN),
        commands.Resume(plan_id=PLAN),
        commands.Finish(plan_id=PLAN),
        commands.Submit(plan_id=PLAN, plan=story.plan.spec),
        commands.Cancel(plan_id=PLAN),
    ]
    return said


def lived(plan: Submitted, dice: list[int]) -> Story:
    """A plan after a random life; cancelled seldom, for nothing follows that."""
    story = Story(*plan.tasks, priority=plan.priority)
    for throw in dice:
        choices = commands_for(story, throw // 7)
        # Mostly claims and results, else little happens.
        choices = [choices[0]] * 12 + [choices[2]] * 6 + choices[:-1] * 2 + choices[-1:]
        story.say(choices[throw % len(choices)])
        story.at += (throw % 5) * 0.7
    return story


def without_leases(story: Story) -> dict[str, object]:
    """The folded state but for what a heartbeat may change: leases, sequences, times."""
    seen = portrait(story.plan)
    volatile = {"subject_sequence", "sequence", "lease_until", "updated_at"}
    seen["tasks"] = {
        name: {key: value for key, value in fields.items() if key not in volatile}
        for name, fields in seen["tasks"].items()
    }
    return {key: value for key, value in seen.items() if key != "sequence"}


def check_second(story: Story, command: Command, first: Decision) -> None:
    facts, state, light = len(story.facts), portrait(story.plan), without_leases(story)
    second = story.say(command)
    if isinstance(command, CHATTER):
        assert type(second) is type(first)
        assert without_leases(story) == light
        return
    assert len(story.facts) == facts, f"{command} was carried out twice"
    assert portrait(story.plan) == state
    if isinstance(first, Accept):
        assert isinstance(second, Duplicate | GuardReject | NotAllowed)
        said_by_owner = isinstance(command, commands.Complete | commands.Fail | commands.Release)
        asks_for_a_state = isinstance(
            command, commands.Submit | commands.Pause | commands.Cancel | commands.Finish
        )
        if said_by_owner or asks_for_a_state or isinstance(command, commands.Start):
            assert isinstance(second, Duplicate), f"repeating {command} is no error"
    else:
        assert second == first


@effort(60)
@given(plan=plans(), dice=DICE, throw=st.integers(0, 10_000))
def test_each_command_said_twice_changes_the_world_once(
    plan: Submitted, dice: list[int], throw: int
) -> None:
    for index in range(len(commands_for(lived(plan, []), throw))):
        story = lived(plan, dice)
        command = commands_for(story, throw)[index]
        check_second(story, command, story.say(command))


@effort(40)
@given(plan=plans(), dice=DICE)
def test_a_result_said_again_much_later_changes_nothing(plan: Submitted, dice: list[int]) -> None:
    """Whatever happened since, and whether or not it is still known as a duplicate."""
    story = lived(plan, dice)
    results = [fact.event for fact in story.facts if isinstance(fact.event, Released)]
    for task in list(story.plan.tasks.values())[:MAX_TASKS]:
        for event in results:
            before = len(story.facts)
            if (task.owner, task.attempt) == (event.owner, event.attempt):
                continue
            story.say(
                commands.Release(
                    plan_id=PLAN, task_id=task.spec.id, owner=event.owner, attempt=event.attempt
                )
            )
            assert len(story.facts) == before
