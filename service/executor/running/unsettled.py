"""Checkpoints that handlers of this process have asked for, until the executor answers."""

from concurrent.futures import Future
from itertools import count

from holdfast_worker.failures import TaskCancelled, TaskFailed
from service.executor.attempts.endings import Failure


class Unsettled:
    """Numbers what is asked and finds it again; any thread may."""

    def __init__(self) -> None:
        self._numbers = count()
        self._waiting: dict[int, Future[bool]] = {}

    def ask(self) -> tuple[int, "Future[bool]"]:
        """A new number, and the future that its answer settles."""
        number, stored = next(self._numbers), Future[bool]()
        self._waiting[number] = stored
        return number, stored

    def settle(self, number: int, failure: Failure | None) -> None:
        """The checkpoint is in the log, unless there was a ``failure``."""
        stored = self._waiting.pop(number, None)
        if stored is None:
            return
        if failure is None:
            stored.set_result(True)
        elif failure.error_type == "cancelled":
            stored.set_exception(TaskCancelled(failure.error_message))
        else:
            stored.set_exception(
                TaskFailed(failure.error_type, failure.error_message, retryable=failure.retryable)
            )
