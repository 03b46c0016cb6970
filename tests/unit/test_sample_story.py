"""The sample plan's story on the terminal: a line per fact, in words, no wider than it is."""

import pytest
from msgspec import Raw

from service.sample.story import Story
from streams.log import Fact, Origin
from streams.plan.events import Completed


def told(output: bytes) -> str:
    said: list[str] = []
    story = Story("p", said.append, lambda: None)
    event = Completed(owner="w", attempt=1, output=Raw(output))
    fact = Fact(sequence=7, at=0.0, plan_id="p", task_id="count-1", event=event, origin=Origin())
    story.folded(fact)
    (line,) = said
    return line.partition("count-1    ")[2]


def test_what_a_command_printed_is_told_and_not_its_json() -> None:
    assert told(b'{"exit_code":0,"stdout":"12 README.md\\nmore\\n"}') == "12 README.md"
    assert told(b'"a text"') == "a text"
    assert told(b'{"words":3}') == '{"words":3}'


def test_no_line_is_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert told(b'"%s"' % (b"x" * 200)).endswith("x…")
    assert len(told(b'"%s"' % (b"x" * 200))) < 60
