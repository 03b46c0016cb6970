"""On the terminal each plan that ends has its line; many that end at once have a few and a sum."""

import io
import threading

import pytest

from service.cli.plan_ends import PER_SECOND, PlanEnds
from service.signals.terminal_lines import LINES, TerminalLines
from streams.log import Fact
from streams.plan.commands import Cancel
from streams.plan.events import Finished
from tests.unit.plan_story import PLAN, START_AT, Story, task
from tests.waiting import eventually


def ended(plan_id: str, sequence: int = 7, *, after_s: float = 0.4) -> Fact:
    return Fact(sequence, START_AT + after_s, plan_id, None, Finished(status="CANCELLED"))


def cancelled(name: str) -> Story:
    story = Story(task("a"), task("b"), name=name)
    story.say(Cancel(plan_id=PLAN, reason="for the test"))
    return story


@pytest.mark.parametrize(
    ("after_s", "said"),
    [(0.44, "in 0.4 s, "), (61, "in 1 min 1 s, "), (3 * 3600 + 720, "in 3 h 12 min, ")],
)
async def test_a_line_has_id_status_duration_tasks_and_name(after_s: float, said: str) -> None:
    lines: list[str] = []
    story = cancelled("words \x1b[2J and\nmore")
    ends = PlanEnds(lambda _: story.plan, lines.append)
    for fact in story.facts[:1]:
        ends.folded(fact)
    assert lines == []
    ends.folded(ended(PLAN, after_s=after_s))
    (line,) = lines
    assert f"plan ended       p: CANCELLED {said}2 tasks: words \\x1b[2J and more" in line


async def test_more_than_a_few_a_second_are_counted_and_said_once() -> None:
    lines: list[str] = []
    ends = PlanEnds(lambda _: None, lines.append, but="told elsewhere")
    ends.folded(ended("told elsewhere"))
    for number in range(PER_SECOND + 1_200):
        ends.folded(ended(f"p{number}", number))
    assert len(lines) == PER_SECOND
    await eventually(lambda: len(lines) > PER_SECOND, "the sum is said", 10)
    assert lines[PER_SECOND:] == ["  and 1,200 more plans ended within a second: 1,200 CANCELLED"]
    ends.folded(ended("later"))
    assert "later: CANCELLED" in lines[-1]


def test_a_terminal_that_has_stopped_costs_lines_and_not_the_loop() -> None:
    stopped = threading.Event()

    class Stopped(io.StringIO):
        def write(self, text: str, /) -> int:
            assert stopped.wait(20)
            return super().write(text)

    stream = Stopped()
    lines = TerminalLines(stream)
    for number in range(2 * LINES):
        lines.say(f"line {number}")
    stopped.set()
    lines.flush()
    assert 0 < len(stream.getvalue().splitlines()) <= LINES
    assert stream.getvalue().startswith("line 0\nline 1\n")
