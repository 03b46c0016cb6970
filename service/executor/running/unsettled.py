"""Checkpoints that a handler's process has asked for: in that process, and in the executor."""

from collections.abc import Callable
from concurrent.futures import Future
from itertools import count

from holdfast_worker.failures import TaskCancelled, TaskFailed
from holdfast_worker.task import Keep
from service.executor.attempts.endings import Failure, failure_of
from service.executor.running.messages import HostCheckpoint, Kept
from streams.json_values import NotJson


class Unsettled:
    """Numbers what this process asks, until the executor answers; any thread may ask."""

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


def store(keep: Keep, asked: HostCheckpoint, answer: Callable[[Kept], object]) -> None:
    """In the executor: store it; ``answer`` is called, on any thread, when it stands or failed."""

    def end(error: BaseException | None) -> None:
        answer(Kept(asked.number, None if error is None else failure_of(error)))

    try:
        stored = keep(asked.key, asked.value, asked.usage)
    except NotJson as error:
        end(error)
    else:
        stored.add_done_callback(lambda future: end(future.exception()))
