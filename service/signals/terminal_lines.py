"""Writes lines for a person to standard output, each whole, from a thread of its own.

A terminal that has stopped (Ctrl-S) costs lines and never stops the service.
"""

import logging
import sys
from typing import TextIO

from service.signals.logs import QueuedHandler

LINES = 1_000


class TerminalLines:
    """`say` a line; `flush` waits until what was said is written, or a bounded time."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._handler = QueuedHandler(sys.stdout if stream is None else stream, LINES)

    def say(self, text: str) -> None:
        """Write ``text``, one line or several that stay together; the caller escapes it."""
        self._handler.emit(logging.LogRecord("", logging.INFO, "", 0, text, None, None))

    def flush(self) -> None:
        """Wait until it is written, within the bound of `QueuedHandler.flush`."""
        self._handler.flush()
