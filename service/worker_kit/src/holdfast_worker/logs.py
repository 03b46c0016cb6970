"""Log lines that name their attempt, and a way to log that never blocks the heartbeats."""

import logging
from collections.abc import Generator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from queue import Full, Queue
from threading import Thread
from typing import Any

INFO = logging.INFO
FORMAT = "%(asctime)s %(levelname)s %(name)s %(attempt_key)s%(message)s"
QUEUE_LINES = 1_000

_bound: ContextVar[Mapping[str, Any] | None] = ContextVar("holdfast_attempt", default=None)


@contextmanager
def bound(plan_id: str, task_id: str, attempt: int) -> Generator[None]:
    """Lines logged inside, through `AttemptFilter`, bear this attempt."""
    token = bind(plan_id, task_id, attempt)
    try:
        yield
    finally:
        _bound.reset(token)


def bind(plan_id: str, task_id: str, attempt: int) -> Token[Mapping[str, Any] | None]:
    """`bound` to the end of this context, such as that of an asyncio task."""
    return _bound.set({"plan_id": plan_id, "task_id": task_id, "attempt": attempt})


class AttemptFilter(logging.Filter):
    """Gives each record ``plan_id``, ``task_id``, ``attempt`` and ``attempt_key``.

    Add it to a logging *handler*, so that lines of every library bear the attempt that caused
    them. Outside a task the fields are None and the key is empty.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields; every record passes."""
        here = _bound.get() or {"plan_id": None, "task_id": None, "attempt": None}
        for name, value in here.items():
            if not hasattr(record, name):
                setattr(record, name, value)
        plan_id, task_id = vars(record)["plan_id"], vars(record)["task_id"]
        key = f"[{plan_id}/{task_id}#{vars(record)['attempt']}] " if plan_id else ""
        record.attempt_key = key
        return True


class AttemptLog(logging.LoggerAdapter[logging.Logger]):
    """``task.log``: the logger ``holdfast_worker.task`` with the attempt in each record."""

    def __init__(self, plan_id: str, task_id: str, attempt: int) -> None:
        fields = {"plan_id": plan_id, "task_id": task_id, "attempt": attempt}
        super().__init__(logging.getLogger("holdfast_worker.task"), fields)

    def process(
        self, msg: object, kwargs: MutableMapping[str, Any]
    ) -> tuple[object, MutableMapping[str, Any]]:
        """The attempt's fields beside those that the caller gives in ``extra``."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


def configure_if_nothing_is() -> None:
    """Log readable lines to stderr, unless the program has set its logging up."""
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler()
    handler.addFilter(AttemptFilter())
    handler.setFormatter(logging.Formatter(FORMAT))
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    for chatty in ("httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class Notices:
    """Log lines of the kit's own loop, written on another thread.

    A reader of stderr that has stopped blocks every thread that logs; the heartbeats must not be
    among them. More than `QUEUE_LINES` waiting lines are dropped.
    """

    def __init__(self) -> None:
        self._log = logging.getLogger("holdfast_worker")
        self._lines: Queue[tuple[int, str, tuple[object, ...]]] = Queue(QUEUE_LINES)
        Thread(target=self._write, name="holdfast-notices", daemon=True).start()

    def say(self, level: int, message: str, *arguments: object) -> None:
        """Log a line; never blocks."""
        with suppress(Full):
            self._lines.put_nowait((level, message, arguments))

    def warn(self, message: str, *arguments: object) -> None:
        """Log a warning; never blocks."""
        self.say(logging.WARNING, message, *arguments)

    def _write(self) -> None:
        while True:
            level, message, arguments = self._lines.get()
            self._log.log(level, message, *arguments)
