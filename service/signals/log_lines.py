"""The form of a log line: JSON, or readable text on a terminal, and never more than a few kB.

A line never holds local variables, because they hold inputs, outputs and tokens.
"""

import os
from contextlib import suppress
from datetime import datetime
from io import StringIO
from typing import Any, TextIO, cast

import msgspec
import structlog

from service.runtime.terminal import escaped
from streams.json_values import text_of

LINE_CHARACTERS = 8_000
VALUE_CHARACTERS = 400  # of each value, in a line that would be longer than that
VALUES = 16
FRAMES = 16  # of a traceback: half of them from either end

SHARED: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    structlog.processors.StackInfoRenderer(),
]

_KEPT = ("event", "level", "logger", "at", "instance_id")
_encode = msgspec.json.Encoder(enc_hook=text_of).encode


class Lines(str):
    """Lines that their writer has rendered as JSON: as JSON they go out as they are."""

    __slots__ = ()


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """structlog's, with a short way for lines that are rendered already."""

    def __init__(self, for_people: "_ForPeople | None", **options: Any) -> None:  # noqa: ANN401
        """``for_people`` renders the lines of a readable log; None: they stay JSON."""
        super().__init__(**options)
        self._for_people = for_people

    def format(self, record: Any) -> str:  # noqa: ANN401 - logging's LogRecord
        """What ``record`` has to say."""
        if isinstance(record.msg, Lines):
            return self._rendered_again(record.msg)
        return super().format(record)

    def _rendered_again(self, lines: Lines) -> str:
        if (render := self._for_people) is None:
            return str(lines)
        return "\n".join(render(None, "", msgspec.json.decode(line)) for line in lines.split("\n"))


def formatter(
    instance_id: str, stream: TextIO, look: str = "auto"
) -> structlog.stdlib.ProcessorFormatter:
    """The formatter for lines to ``stream``; ``look`` is `log.format`; JSON lines bear the id."""

    def bind_instance(
        _: structlog.typing.WrappedLogger, __: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        event.setdefault("instance_id", instance_id)
        return event

    for_people = _ForPeople(colors=stream.isatty()) if wants_text(stream, look) else None
    last: list[structlog.typing.Processor] = (
        # The person at the terminal knows which process this is.
        [for_people]
        if for_people
        else [bind_instance, structlog.processors.ExceptionRenderer(_traceback), _as_json]
    )
    return _Formatter(
        for_people,
        foreign_pre_chain=SHARED,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )


def wants_text(stream: TextIO, look: str) -> bool:
    """Whether a log on ``stream`` is for people; ``look`` is `log.format`."""
    wish = os.environ.get("HOLDFAST_LOG", "") if look == "auto" else look
    return wish in {"console", "text"} or (wish != "json" and stream.isatty())


_traceback = structlog.tracebacks.ExceptionDictTransformer(
    show_locals=False, max_frames=FRAMES, use_rich=False
)


def _as_json(_: structlog.typing.WrappedLogger, __: str, event: structlog.typing.EventDict) -> str:
    line = _encoded(event)
    return line if len(line) <= LINE_CHARACTERS else _encoded(_shortened(event))


def _encoded(event: structlog.typing.EventDict) -> str:
    try:
        return _encode(event).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        return _encode({text_of(name): text_of(value) for name, value in event.items()}).decode()


def _shortened(event: structlog.typing.EventDict) -> dict[str, object]:
    """The line's own words and as many values as there is room for, each cut."""
    names = [*_KEPT, *(name for name in event if name not in _KEPT)]
    kept = {name: _cut(event[name]) for name in names[:VALUES] if name in event}
    return kept | {"shortened": True}


def _cut(value: object) -> object:
    if value is None or isinstance(value, float) or (isinstance(value, int) and value < 2**63):
        return value
    return text_of(value, VALUE_CHARACTERS)


_IN_LINES = {"exception", "stack"}


def _harmless(text: str) -> str:
    """``text``, unable to steer the terminal, in as many lines."""
    return "\n".join(map(escaped, text.split("\n")))


def _harmless_traceback(stream: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    raw = StringIO()
    structlog.dev.plain_traceback(raw, exc_info)
    stream.write(_harmless(raw.getvalue()))


def _escaped(key: str, value: object) -> object:
    if not isinstance(value, str):
        return value  # it is shown by repr, which escapes
    return _harmless(value) if key in _IN_LINES else escaped(value)


_KNOWN_HERE = {"class", "instance"}  # to the person at the terminal of this process
_READ_FIRST = ("detail", "plan_id", "task_id", "owner", "attempt")


def _in_reading_order(event: structlog.typing.EventDict) -> dict[str, object]:
    """The sentence first, then where; an object's fields one by one, as ``expected.owner``."""
    told = {name: event[name] for name in _READ_FIRST if event.get(name) is not None}
    for name, value in event.items():
        if name in _KNOWN_HERE or name in told:
            continue
        if isinstance(value, dict):
            fields = cast("dict[object, object]", value).items()
            told |= {f"{name}.{field}": each for field, each in fields if each is not None}
        else:
            told[name] = value
    return told


class _ForPeople(structlog.dev.ConsoleRenderer):
    """structlog's, without rich's traceback: that one takes time by the square of a message."""

    def __init__(self, *, colors: bool) -> None:
        super().__init__(
            colors=colors,
            exception_formatter=_harmless_traceback,
            sort_keys=False,
            timestamp_key="at",
        )

    def __call__(
        self,
        logger: structlog.typing.WrappedLogger,
        name: str,
        event_dict: Any,  # noqa: ANN401
    ) -> str:
        """The line, its local time first, and a traceback below it."""
        with suppress(KeyError, ValueError, TypeError):
            at = datetime.fromisoformat(event_dict["at"]).astimezone()
            event_dict["at"] = at.time().isoformat("milliseconds")
        told = _in_reading_order(event_dict)
        shown = {escaped(str(key)): _escaped(key, value) for key, value in told.items()}
        text = str(super().__call__(logger, name, shown))
        left_out = len(text) - LINE_CHARACTERS
        return text if left_out <= 0 else f"{text[:LINE_CHARACTERS]} … ({left_out} more)"
