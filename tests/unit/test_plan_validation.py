"""A plan that makes no sense is refused with a sentence that names the culprit."""

from itertools import pairwise

import pytest

from streams.plan.decisions import Invalid
from streams.plan.events import TaskSpec
from tests.unit.plan_story import Story, critic, given, task


def complaint(*tasks: TaskSpec) -> str:
    story = Story(*tasks)
    assert isinstance(story.answer, Invalid), story.answer
    assert not story.facts
    return story.answer.detail


def test_a_plan_has_tasks() -> None:
    assert "at least one task" in complaint()


def test_an_id_stands_for_one_task() -> None:
    assert "'a'" in complaint(task("b"), task("a"), task("a"))


def test_a_dependency_exists() -> None:
    said = complaint(task("a"), task("b", after="a ghost"))
    assert "'b'" in said
    assert "'ghost'" in said


def test_a_dependency_is_named_once() -> None:
    assert "'b'" in complaint(task("a"), task("b", after="a a"))


def test_a_cycle_is_shown_in_the_order_of_its_arrows() -> None:
    said = complaint(task("a", after="c"), task("b", after="a"), task("c", after="b"), task("z"))
    names = said.rsplit(": ", 1)[1].split(" → ")
    assert names[0] == names[-1]
    assert set(names) == {"a", "b", "c"}
    depends_on = {"a": "c", "b": "a", "c": "b"}
    # Every arrow says the same: "is needed by" or "needs".
    pairs = list(pairwise(names))
    assert all(depends_on[x] == y for x, y in pairs) or all(depends_on[y] == x for x, y in pairs)


def test_a_task_does_not_depend_on_itself() -> None:
    assert "a → a" in complaint(task("a", after="a"))


def test_a_cycle_of_5000_is_found_without_recursion() -> None:
    ring = [task(f"t{n}", after=f"t{(n - 1) % 5_000}") for n in range(5_000)]
    assert "cycle" in complaint(*ring)


@pytest.mark.parametrize("quorum", [None, 0, -1, 3])
def test_a_quorum_is_between_one_and_its_dependencies(quorum: int | None) -> None:
    said = complaint(task("x"), task("y"), task("j", after="x y", join="quorum", quorum=quorum))
    assert "'j'" in said
    assert "quorum" in said


def test_a_quorum_needs_its_join() -> None:
    assert "'j'" in complaint(task("x"), task("j", after="x", quorum=1))


def test_a_critic_has_a_target() -> None:
    assert "'c'" in complaint(task("c", type="critic"))
    assert "'c'" in complaint(task("a"), task("b"), task("c", after="a b", type="critic"))
    assert "'ghost'" in complaint(task("a"), critic("c", of="ghost"))


def test_a_critic_does_not_judge_itself() -> None:
    assert "c → c" in complaint(task("a"), critic("c", of="c"))


def test_a_worker_has_no_target() -> None:
    assert "'b'" in complaint(task("a"), task("b", target="a"))


def test_a_critics_only_dependency_is_its_target() -> None:
    story = given(task("a"), task("c", after="a", type="critic"))
    assert story.task("c").spec.target == "a"


def test_a_critics_target_becomes_its_dependency() -> None:
    story = given(task("a"), task("x"), critic("c", of="a", after="x"))
    assert story.task("c").spec.depends_on == ("x", "a")
    assert critic("c", of="a").depends_on == ()
