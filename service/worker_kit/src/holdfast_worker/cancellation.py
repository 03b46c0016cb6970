"""The cancellation of one attempt: whether it is to stop, why, and how its handler learns of it."""

import logging
from collections.abc import Callable
from contextvars import copy_context
from threading import Event, Lock, Thread, current_thread
from typing import Literal

from holdfast_worker.failures import TaskCancelled

StopReason = Literal["timeout", "lease_lost", "fenced", "plan_failed", "draining"]
"""``timeout``: the task's own; ``lease_lost``: no renewal in time; ``fenced``: the server refused
the lease; ``plan_failed``: the server asked for it; ``draining``: the worker ends."""

log = logging.getLogger("holdfast_worker")


class Cancellation:
    """Stops one attempt, from any thread; the first reason holds.

    Its callbacks run on the thread that cancels, which may be the one of the heartbeats: they
    must be short. A handler has a `Stopping` instead.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._event: Event | None = None  # made when something waits: few attempts are stopped
        self._callbacks: list[Callable[[], None]] = []
        self.reason: StopReason | None = None

    def cancel(self, reason: StopReason) -> bool:
        """Ask to stop; False if that was asked before."""
        with self._lock:
            if self.reason is not None:
                return False
            self.reason = reason
            if self._event is not None:
                self._event.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            _call(callback)
        return True

    def is_set(self) -> bool:
        """Whether the attempt is to stop."""
        return self.reason is not None

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until the attempt is to stop, or ``timeout_s`` seconds; answers whether it is."""
        with self._lock:
            if self.reason is not None:
                return True
            event = self._event = self._event or Event()
        return event.wait(timeout_s)

    def raise_if_cancelled(self) -> None:
        """Raise `TaskCancelled` when the attempt is to stop."""
        if self.reason is not None:
            raise TaskCancelled(f"the attempt was stopped: {self.reason}")

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once when the attempt is to stop, on the thread that cancels."""
        with self._lock:
            if self.reason is None:
                self._callbacks.append(callback)
                return
        _call(callback)


class Stopping:
    """Whether and why an attempt is to stop, as its handler sees it."""

    def __init__(self, cancellation: Cancellation) -> None:
        self._cancellation = cancellation

    def __bool__(self) -> bool:
        return self._cancellation.is_set()

    @property
    def reason(self) -> StopReason | None:
        """Why the attempt is to stop; None while it may continue."""
        return self._cancellation.reason

    def is_set(self) -> bool:
        """Whether the attempt is to stop."""
        return self._cancellation.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until the attempt is to stop, or ``timeout_s`` seconds; answers whether it is."""
        return self._cancellation.wait(timeout_s)

    def raise_if_cancelled(self) -> None:
        """Raise `TaskCancelled` when the attempt is to stop."""
        self._cancellation.raise_if_cancelled()

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once when the attempt is to stop, on a thread of its own.

        It is user code, so it may block and raise without delaying other attempts; what it raises
        is logged. If the attempt is to stop already, it is called at once.
        """
        thread = Thread(
            target=copy_context().run,  # so that its log lines name the attempt and its trace
            args=(_call, callback),
            name=f"{current_thread().name}-cancel",
            daemon=True,
        )
        self._cancellation.on_cancel(thread.start)


def _call(callback: Callable[[], None]) -> None:
    try:
        callback()
    except Exception:
        log.exception("on_cancel_raised")
