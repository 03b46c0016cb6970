"""Structured logs: one JSON object per line on stderr, or readable lines for a person.

`log.format` decides the look. With `auto` the variable `HOLDFAST_LOG` (console or json) does, and
without it a terminal gets readable lines and everything else JSON without colours.
Lines of the standard library's loggers (uvicorn, nats) take the same way. Writing happens on a
thread of its own behind a bounded queue: a reader of stderr that has stopped costs lines, which are
counted, and never stops a loop.
"""

import logging
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TextIO

import structlog

from service.runtime.masking import KNOWN
from service.runtime.supervision import Supervision
from service.settings.config import LogSettings
from service.signals.log_lines import SHARED, formatter

DEFAULTS = LogSettings()
QUEUE_LINES = 10_000
QUEUE_CHARACTERS = 16 * 1024 * 1024
FLUSH_S = 2.0
FLUSH_POLL_S = 0.005
# Of one write. Each gives the interpreter lock away and waits to get it back, which under load
# costs all threads more than the write; a pipe with room for it still takes as many whole.
WRITE_CHARACTERS = 32_768


class QueuedHandler(logging.Handler):
    """Formats on the thread that logs, writes on its own thread; a full queue drops and counts."""

    def __init__(
        self,
        stream: TextIO,
        lines: int = QUEUE_LINES,
        characters: int = QUEUE_CHARACTERS,
        wanted: LogSettings = DEFAULTS,
    ) -> None:
        super().__init__()
        self.wanted = wanted
        self.dropped = 0
        self._stream = stream
        self._most = lines
        self._most_characters = characters
        self._queued: list[str] = []
        self._unwritten = 0  # lines, those that are being written among them
        self._size = 0  # their characters
        self._closed = False
        self._news = threading.Condition()
        self.writer = threading.Thread(target=self._write_forever, name="logs", daemon=True)
        self.writer.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue what ``record`` has to say, or count its lines as dropped."""
        try:
            text = KNOWN.text(self.format(record))
        except Exception:  # noqa: BLE001 - a line that cannot be formatted must not stop its writer
            self.handleError(record)
            return
        count = _lines_of(text)
        with self._news:
            size = self._size + len(text) + 1
            if self._unwritten + count > self._most or size > self._most_characters:
                self.dropped += count
                return
            self._unwritten += count
            self._size = size
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
            self.writer.join(FLUSH_S)
        super().close()

    def _write_forever(self) -> None:
        while taken := self._take():
            for text in _together(taken):
                lost = self._write(text)
                with self._news:
                    self.dropped += lost
                    self._unwritten -= _lines_of(text)
                    self._size -= len(text) + 1

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


def in_force() -> LogSettings:
    """The settings of this process's log; a child process takes them over."""
    handlers = logging.getLogger().handlers
    return next((h.wanted for h in handlers if isinstance(h, QueuedHandler)), DEFAULTS)


def watch_writers(supervision: Supervision) -> None:
    """Let ``supervision`` watch the threads that write lines."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, QueuedHandler):
            supervision.watch_thread(handler.writer)


def configure(
    instance_id: str, wanted: LogSettings = DEFAULTS, *, stream: TextIO | None = None
) -> QueuedHandler:
    """Set the whole process's logging up; the last call holds. Every line bears `instance_id`."""
    target: TextIO = sys.stderr if stream is None else stream
    handler = QueuedHandler(target, wanted=wanted)
    handler.setFormatter(formatter(instance_id, target, wanted.format))
    level = logging.getLevelNamesMapping()[wanted.level.upper()]
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each, QueuedHandler)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level)
    # One line per request is the metrics' business; a start and a stop have lines of their own.
    for chatty in ("uvicorn.access", "uvicorn.error", "httpx", "httpcore", "asyncio"):
        logging.getLogger(chatty).setLevel(max(level, logging.WARNING))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        # Loggers stand at module level; caching would freeze what the tests configure anew.
        cache_logger_on_first_use=False,
    )
    return handler
