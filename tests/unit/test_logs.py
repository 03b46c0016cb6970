"""Log lines are JSON for machines, readable for people, and never stop their writer."""

import io
import json
import logging
import threading
import time
from typing import Any, Literal

import pytest
import structlog

from service.settings.config import LogSettings
from service.signals.log_lines import LINE_CHARACTERS, Lines
from service.signals.logs import WRITE_CHARACTERS, QueuedHandler, configure, in_force
from tests.unit.test_terminal import EVIL, is_harmless


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Stuck(io.StringIO):
    """A pipe without a reader."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def write(self, text: str, /) -> int:
        self.released.wait(10)
        return super().write(text)


def lines(stream: io.StringIO, handler: QueuedHandler) -> list[dict[str, Any]]:
    handler.flush()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_the_instance() -> None:
    stream = io.StringIO()
    handler = configure("me:1:ab", stream=stream)
    structlog.get_logger("holdfast.test").info("claimed", attempt=2, text="two\nlines")
    (line,) = lines(stream, handler)
    assert line.pop("at").endswith("Z")
    assert line == {
        "event": "claimed",
        "attempt": 2,
        "text": "two\nlines",
        "level": "info",
        "logger": "holdfast.test",
        "instance_id": "me:1:ab",
    }


def test_the_standard_librarys_loggers_take_the_same_way() -> None:
    stream = io.StringIO()
    handler = configure("me", stream=stream)
    logging.getLogger("uvicorn.error").warning("no room on %s", "port 1")
    (line,) = lines(stream, handler)
    assert (line["event"], line["logger"]) == ("no room on port 1", "uvicorn.error")


def test_an_exception_stays_on_its_line() -> None:
    stream = io.StringIO()
    handler = configure("me", stream=stream)
    try:
        raise ValueError("broken")  # noqa: TRY301
    except ValueError:
        structlog.get_logger().exception("failed")
    (line,) = lines(stream, handler)
    assert line["exception"][0]["exc_value"] == "broken"


def test_what_json_cannot_hold_is_spelt() -> None:
    stream = io.StringIO()
    handler = configure("me", stream=stream)
    structlog.get_logger().info("odd", value=object)
    assert lines(stream, handler)[0]["value"] == "<class 'object'>"


def deep(levels: int) -> None:
    secret = "the-bearer-token"  # noqa: S105 - a local variable that no line may show
    if levels and secret:
        deep(levels - 1)
    raise ValueError("x" * 100_000)


@pytest.mark.parametrize("look", ["json", "console"])
def test_a_traceback_has_no_local_variables_and_a_line_is_short(
    monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    monkeypatch.setenv("HOLDFAST_LOG", look)
    stream = io.StringIO()
    handler = configure("me", stream=stream)
    began = time.process_time()
    try:
        deep(300)
    except ValueError:
        structlog.get_logger().exception("failed", plan_id="p")
    try:
        deep(2)
    except ValueError:
        logging.getLogger("uvicorn.error").exception("failed, too")
    handler.flush()
    assert time.process_time() - began < 2
    said = stream.getvalue()
    assert "the-bearer-token" not in said
    assert said.count("failed") >= 2
    assert len(said) < 2 * LINE_CHARACTERS + 200
    if look == "json":
        long = json.loads(said.splitlines()[0])
        assert (long["event"], long["plan_id"], long["shortened"]) == ("failed", "p", True)


def test_a_line_is_short_whatever_it_is_given_to_say() -> None:
    stream = io.StringIO()
    handler = configure("me", stream=stream)
    odd = {f"key {n}": "y" * 10_000 for n in range(100)}
    structlog.get_logger().info("z" * 100_000, number=7, odd=odd, half="\udcff", **odd)
    (line,) = lines(stream, handler)
    assert line["number"] == 7
    assert len(stream.getvalue()) < LINE_CHARACTERS


@pytest.mark.parametrize("look", ["json", "text"])
def test_half_a_surrogate_pair_costs_no_line_wherever_it_stands(
    look: Literal["json", "text"],
) -> None:
    raw, half = io.BytesIO(), "half \udce9"
    handler = configure(
        "me", LogSettings(format=look), stream=io.TextIOWrapper(raw, encoding="utf-8")
    )
    said, library = structlog.get_logger("a.handler"), logging.getLogger(half)
    said.info(half)
    said.info("a value", value=half)
    said.info("a nested value", value={half: [half]})
    said.info("a key", **{half: 1})
    library.warning("an argument: %s", half)
    try:
        raise ValueError(half)  # noqa: TRY301
    except ValueError:
        said.exception("an exception")
        library.exception("an exception of a library")
    handler.flush()
    text = raw.getvalue().decode()
    for words in ("value", "nested", "key", "argument", "an exception", "library"):
        assert words in text
    assert text.count(r"\udce9") >= 7  # in JSON the backslash is doubled
    assert handler.dropped == 0


def test_lines_that_wait_are_bounded_in_characters_too() -> None:
    stream = Stuck()
    handler = QueuedHandler(stream, characters=1_000)
    for _ in range(20):
        handler.emit(logging.makeLogRecord({"msg": "x" * 99}))
    assert handler.dropped == 10
    stream.released.set()
    handler.close()
    assert len(stream.getvalue().splitlines()) == 10


def test_debug_lines_are_left_out() -> None:
    stream = io.StringIO()
    handler = configure("me", stream=stream)
    structlog.get_logger().debug("chatter")
    assert lines(stream, handler) == []


def test_a_terminal_gets_readable_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOLDFAST_LOG", raising=False)
    stream = Terminal()
    handler = configure("me", stream=stream)
    structlog.get_logger().info("claimed", attempt=2)
    handler.flush()
    assert "claimed" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


@pytest.mark.parametrize(("wish", "is_json"), [("console", False), ("json", True)])
def test_the_environment_decides(
    monkeypatch: pytest.MonkeyPatch, wish: str, *, is_json: bool
) -> None:
    monkeypatch.setenv("HOLDFAST_LOG", wish)
    stream = Terminal() if is_json else io.StringIO()
    handler = configure("me", stream=stream)
    structlog.get_logger().info("claimed")
    handler.flush()
    assert stream.getvalue().startswith("{") is is_json
    assert "\x1b" not in stream.getvalue()


def test_no_value_and_no_exception_steers_the_terminal_that_shows_the_log() -> None:
    stream = io.StringIO()
    handler = configure("me", LogSettings(format="text"), stream=stream)
    steering = EVIL.replace(" ", "")  # structlog quotes what has blanks
    try:
        int(EVIL)
    except ValueError:
        structlog.get_logger().exception(EVIL, reason=steering, words=EVIL, parts=[EVIL])
    error = ValueError(EVIL)
    structlog.get_logger().error("failed", exc_info=error)
    handler.flush()
    assert "x1b" in stream.getvalue()
    assert is_harmless(stream.getvalue())


@pytest.mark.parametrize(("look", "is_json"), [("text", False), ("json", True)])
def test_the_setting_stands_above_the_environment(
    monkeypatch: pytest.MonkeyPatch, look: Literal["text", "json"], *, is_json: bool
) -> None:
    monkeypatch.setenv("HOLDFAST_LOG", "console" if is_json else "json")
    stream = io.StringIO()
    wanted = LogSettings(format=look)
    handler = configure("me", wanted, stream=stream)
    structlog.get_logger().info("claimed")
    handler.flush()
    assert stream.getvalue().startswith("{") is is_json
    assert in_force() == wanted, "a child process takes it over"


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_lines_below_the_level_are_left_out(
    level: Literal["debug", "info", "warning", "error"],
) -> None:
    stream = io.StringIO()
    handler = configure("me", LogSettings(level=level), stream=stream)
    names = ["debug", "info", "warning", "error"]
    for name in names:
        getattr(structlog.get_logger(), name)(name)
    logging.getLogger("httpx").warning("warning")
    ours = {__name__, "httpx"}  # threads of earlier tests may say something, too
    kept = [*names[names.index(level) :], *(["warning"] if level != "error" else [])]
    assert [line["event"] for line in lines(stream, handler) if line["logger"] in ours] == kept


def test_lines_rendered_as_json_are_readable_in_a_readable_log() -> None:
    stream = Terminal()
    handler = configure("me", LogSettings(format="text"), stream=stream)
    rendered = Lines('{"event":"audit","level":"warning"}\n{"event":"next","level":"warning"}')
    handler.emit(logging.makeLogRecord({"msg": rendered}))
    handler.flush()
    first, second = stream.getvalue().splitlines()
    assert "audit" in first
    assert "next" in second
    assert "{" not in stream.getvalue()


def test_a_readable_line_begins_with_its_sentence_and_holds_no_object() -> None:
    stream = io.StringIO()
    handler = configure("me", LogSettings(format="text"), stream=stream)
    line = {
        "event": "claimed_update_guard_reject",
        "class": "always",
        "instance": "me",
        "expected": {"owner": "w1", "attempt": 1},
        "actual": {"owner": "w2", "attempt": 2, "status": None},
        "task_id": "a",
        "plan_id": "p",
        "detail": "complete of attempt 1 by w1 refused",
    }
    logging.getLogger("holdfast.audit").warning(Lines(json.dumps(line)))
    handler.flush()
    said = stream.getvalue()
    assert "{" not in said
    assert "class=" not in said
    words = ["detail=", "plan_id=p", "task_id=a", "expected.owner=w1", "actual.attempt=2"]
    places = [said.index(word) for word in words]
    assert places == sorted(places)


def test_a_stuck_reader_costs_lines_and_not_time() -> None:
    stream = Stuck()
    handler = QueuedHandler(stream, lines=10)
    for number in range(100):
        handler.emit(logging.makeLogRecord({"msg": str(number)}))
    assert 89 <= handler.dropped <= 90
    stream.released.set()
    handler.close()
    assert stream.getvalue().startswith("0\n1\n2\n")


class Counting(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str, /) -> int:
        self.writes.append(text)
        return super().write(text)


def test_many_lines_go_out_in_few_writes_that_a_pipe_takes_whole() -> None:
    stream = Counting()
    handler = QueuedHandler(stream)
    said = [json.dumps({"n": n, "text": "x" * 90}) for n in range(1_000)]
    said[500] = json.dumps({"text": "y" * 10_000})
    handler.emit(logging.makeLogRecord({"msg": "\n".join(said)}))
    handler.close()
    assert stream.getvalue().splitlines() == said
    assert len(stream.writes) < 40
    assert all(len(text) <= WRITE_CHARACTERS or text == said[500] + "\n" for text in stream.writes)
    assert all(text.endswith("}\n") for text in stream.writes)


def test_lines_that_come_together_are_bounded_and_counted_one_by_one() -> None:
    stream = Stuck()
    handler = QueuedHandler(stream, lines=10)
    for _ in range(4):
        handler.emit(logging.makeLogRecord({"msg": Lines("\n".join("abcd"))}))
    assert handler.dropped == 8
    stream.released.set()
    handler.close()
    assert stream.getvalue() == "a\nb\nc\nd\n" * 2


def test_configured_twice_writes_once() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure("me", stream=first)
    handler = configure("me", stream=second)
    structlog.get_logger().info("once")
    assert len(lines(second, handler)) == 1
    assert first.getvalue() == ""
