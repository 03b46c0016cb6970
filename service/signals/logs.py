"""Structured logs: one JSON object per line on stderr, or readable lines for a person.

A terminal and `HOLDFAST_LOG=console` get readable lines, everything else (or `HOLDFAST_LOG=json`)
JSON without colours. Lines of the standard library's loggers (uvicorn, nats) take the same way.
Writing happens on a thread of its own behind a bounded queue: a reader of stderr that has stopped
costs lines, which are counted, and never stops a loop.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TextIO

import structlog

QUEUE_LINES = 10_000
FLUSH_S = 2.0
FLUSH_POLL_S = 0.005
# Of one write. Each gives the interpreter lock away and waits to get it back, which under load
# costs everybody more than the write; a pipe with room for it still takes as many whole.
WRITE_CHARACTERS = 32_768

_SHARED: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    structlog.processors.StackInfoRenderer(),
]


class Lines(str):
    """Lines that their writer has rendered as JSON: they go out as they are, in either look."""

    __slots__ = ()


class QueuedHandler(logging.Handler):
    """Formats where a line is born, writes on its own thread; a full queue drops and counts."""

    def __init__(self, stream: TextIO, lines: int = QUEUE_LINES) -> None:
        super().__init__()
        self.dropped = 0
        self._stream = stream
        self._most = lines
        self._queued: list[str] = []
        self._unwritten = 0  # lines, those that are being written among them
        self._closed = False
        self._news = threading.Condition()
        self._writer = threading.Thread(target=self._write_forever, name="logs", daemon=True)
        self._writer.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue what ``record`` has to say, or count its lines as dropped."""
        try:
            text = self.format(record)
        except Exception:  # noqa: BLE001 - a line that cannot be formatted must not stop its writer
            self.handleError(record)
            return
        count = _lines_of(text)
        with self._news:
            if self._unwritten + count > self._most:
                self.dropped += count
                return
            self._unwritten += count
            self._queued.append(text)
            self._news.notify()

    def flush(self) -> None:
        """Wait until the queued lines are written, at most `FLUSH_S`."""
        deadline = time.monotonic() + FLUSH_S
        while self._unwritten and time.monotonic() < deadline:
            time.sleep(FLUSH_POLL_S)

    def close(self) -> None:
        """Write what is queued, within `FLUSH_S`, and end the thread."""
        self.flush()
        with self._news:
            self._closed = True
            self._news.notify()
        if not self._unwritten:  # else the stream has stopped; the thread ends with the process
            self._writer.join(FLUSH_S)
        super().close()

    def _write_forever(self) -> None:
        while taken := self._take():
            for text in _together(taken):
                lost = self._write(text)
                with self._news:
                    self.dropped += lost
                    self._unwritten -= _lines_of(text)

    def _take(self) -> list[str]:
        """All that is queued, as soon as there is something; nothing at the end."""
        with self._news:
            self._news.wait_for(lambda: self._queued or self._closed)
            taken, self._queued = self._queued, []
            return taken

    def _write(self, text: str) -> int:
        """Write lines; answers how many are lost."""
        try:
            self._stream.write(text + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            return _lines_of(text)  # stderr is gone; the service is not
        return 0


def _lines_of(text: str) -> int:
    return text.count("\n") + 1


def _together(texts: Sequence[str]) -> Iterator[str]:
    """The same lines in pieces of up to `WRITE_CHARACTERS`; a longer line is one by itself."""
    piece: list[str] = []
    size = 0
    for line in chain.from_iterable(text.split("\n") for text in texts):
        if piece and size + len(line) >= WRITE_CHARACTERS:
            yield "\n".join(piece)
            piece, size = [], 0
        piece.append(line)
        size += len(line) + 1
    if piece:
        yield "\n".join(piece)


def configure(
    instance_id: str, *, level: int = logging.INFO, stream: TextIO | None = None
) -> QueuedHandler:
    """Set the whole process's logging up; the last call holds. Every line bears `instance_id`."""
    target: TextIO = sys.stderr if stream is None else stream
    handler = QueuedHandler(target)
    handler.setFormatter(_formatter(instance_id, target))
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each, QueuedHandler)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level)
    # One line per request is the metrics' business.
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    for chatty in ("httpx", "httpcore", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        # Loggers stand at module level; caching would freeze what the tests configure anew.
        cache_logger_on_first_use=False,
    )
    return handler


def _wants_console(stream: TextIO) -> bool:
    wish = os.environ.get("HOLDFAST_LOG", "")
    return wish == "console" or (wish != "json" and stream.isatty())


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """structlog's, with a short way for lines that are rendered already."""

    def format(self, record: logging.LogRecord) -> str:
        """What ``record`` has to say."""
        if isinstance(record.msg, Lines):
            return str(record.msg)
        return super().format(record)


def _formatter(instance_id: str, stream: TextIO) -> structlog.stdlib.ProcessorFormatter:
    def bind_instance(
        _: structlog.typing.WrappedLogger, __: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        event.setdefault("instance_id", instance_id)
        return event

    look: list[structlog.typing.Processor] = (
        # The person at the terminal knows which process this is.
        [structlog.dev.ConsoleRenderer(colors=stream.isatty())]
        if _wants_console(stream)
        else [
            bind_instance,
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(default=str),
        ]
    )
    return _Formatter(
        foreign_pre_chain=_SHARED,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *look],
    )
