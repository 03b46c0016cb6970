"""Text from outside cannot steer the terminal that shows it, on whatever way it gets there."""

import json
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from service.cli.client import complain
from service.cli.events import line
from service.cli.follower import note
from service.runtime.terminal import escaped, escaped_json, on_one_line
from service.sample.story import Story
from streams.log import Fact
from streams.plan.events import Failed

ESC, CSI, BELL, RIGHT_TO_LEFT, ISOLATE, TAG = (
    "\x1b",
    "\x9b",
    "\x07",
    "\u202e",
    "\u2066",
    "\U000e0041",
)
EVIL = f"a{ESC}]52;c;ZXZpbA=={BELL}b{CSI}2Jc{RIGHT_TO_LEFT}d{ISOLATE}e\r\nholdfast: ok{TAG}"


def is_harmless(text: str) -> bool:
    return all(each.isprintable() or each == "\n" for each in text)


def test_what_would_steer_is_shown_as_an_escape() -> None:
    assert escaped(EVIL).startswith("a\\x1b]52;c;ZXZpbA==\\x07b\\x9b2Jc\\u202ed\\u2066e\\r\\n")
    assert escaped("Grüße, 日本語 🎉") == "Grüße, 日本語 🎉"
    assert on_one_line("a\n\t b") == "a b"
    assert is_harmless(on_one_line(EVIL))
    assert escaped("\udcff") == "\\udcff"


def test_escaped_json_says_the_same() -> None:
    text = msgspec.json.encode({"x": EVIL}).decode()
    assert not text.isprintable()
    assert escaped_json(text).isprintable()
    assert json.loads(escaped_json(text)) == {"x": EVIL}


@pytest.mark.parametrize("field", ["owner", "error_message", "reason", "output"])
def test_events_notes_and_complaints_do_not_steer(
    field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    event: dict[str, Any] = {
        "at": EVIL, "sequence": 1, "type": EVIL, "plan_id": EVIL, "task_id": EVIL,
        "data": {field: EVIL},
    }  # fmt: skip
    assert line(event).isprintable()
    complain(EVIL, 1)
    note(EVIL)
    said = capsys.readouterr().err
    assert is_harmless(said)
    assert len(said.splitlines()) == 2


def test_the_story_of_the_sample_does_not_steer(capsys: pytest.CaptureFixture[str]) -> None:
    failed = Failed(owner="w", attempt=1, error_type=EVIL, error_message=EVIL)
    fact = SimpleNamespace(plan_id="p", task_id="t", event=failed, at=0.0, sequence=1)
    assert not isinstance(fact, Fact)
    Story("p", print, lambda: None).folded(fact)  # pyright: ignore[reportArgumentType]
    said = capsys.readouterr().out
    assert is_harmless(said)
    assert len(said.splitlines()) == 1
