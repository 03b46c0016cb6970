"""The child's side of a process handler: takes jobs from its parent until the parent is gone."""

import importlib
import logging
import os
import queue
import signal
import socket
import sys
from concurrent.futures import Future
from threading import Thread
from time import monotonic
from typing import cast

import msgspec
from msgspec import Raw

from holdfast_worker.cancellation import Cancellation
from holdfast_worker.handler import AnyHandler, Handler
from holdfast_worker.progress import Shown
from holdfast_worker.task import Keep
from holdfast_worker.tokens import Usage
from service.executor.attempts.endings import Ending, Failure
from service.executor.attempts.execution import execute
from service.executor.running.frames import FrameTooLarge, Garbled
from service.executor.running.messages import (
    HostCheckpoint,
    HostEnded,
    HostProgress,
    HostStop,
    HostWork,
    Kept,
    KnownSecrets,
    ToChild,
    too_large,
)
from service.executor.running.processes import FrameSocket
from service.executor.running.unsettled import Unsettled
from service.runtime.child_process import end_with_parent
from service.runtime.masking import KNOWN
from service.runtime.tuning import give_way
from service.settings.config import LogSettings
from service.signals import logs


class _Listener:
    """Receives jobs and stops while a handler runs; ends the process when the parent is gone."""

    def __init__(self, wire: FrameSocket) -> None:
        self._wire = wire
        self._cancelled = Cancellation()
        self._unsettled = Unsettled()
        self.jobs: queue.SimpleQueue[tuple[HostWork, Cancellation]] = queue.SimpleQueue()

    def listen(self) -> None:
        while (message := self._next()) is not None:
            match message:
                case HostWork():
                    self._cancelled = Cancellation()
                    self.jobs.put((message, self._cancelled))
                case KnownSecrets():
                    KNOWN.know(message.values)
                case HostStop():
                    self._cancelled.cancel(message.reason)
                case Kept():
                    self._unsettled.settle(message.number, message.failure)
        for handler in logging.getLogger().handlers:
            handler.flush()
        # Not sys.exit: only this thread would end, and the handler may never look up.
        os._exit(0)

    def keep(self, key: str, value: Raw, usage: Usage | None) -> "Future[bool]":
        """Ask the parent to store a checkpoint."""
        number, stored = self._unsettled.ask()
        self._wire.send(HostCheckpoint(0, number, key, value, usage))
        return stored

    def _next(self) -> ToChild | None:
        try:
            message: ToChild | None = self._wire.receive()
        except Garbled:
            return None
        return message


def _find(job: HostWork) -> AnyHandler | None:
    for value in vars(importlib.import_module(job.module)).values():
        if isinstance(value, Handler) and value.kind == job.work.kind:
            return cast("AnyHandler", value)
    return None


def _do(job: HostWork, cancelled: Cancellation, wire: FrameSocket, keep: Keep) -> Ending:
    try:
        handler = _find(job)
    except Exception as error:  # noqa: BLE001 - importing user code
        message = f"the module {job.module!r} cannot be imported: {error}"
        return Failure(error_type="handler_error", error_message=message)
    if handler is None:
        message = f"the module {job.module!r} has no handler for {job.work.kind!r} at its top level"
        return Failure(error_type="handler_error", error_message=message, retryable=False)

    def show(shown: Shown) -> None:
        wire.send(HostProgress.of(0, shown))

    return execute(handler, job.work, cancelled, show, keep)


def _answer(began_at: float, ending: Ending, wire: FrameSocket) -> None:
    try:
        wire.send(HostEnded(0, began_at, ending))
    except FrameTooLarge as error:
        wire.send(HostEnded(0, began_at, too_large(error)))


def main(descriptor: int, frame_bytes: int, instance_id: str, wanted: LogSettings) -> None:
    """Serve jobs from the socket ``descriptor``; returns only by the process's end.

    ``wanted`` are the log settings of the parent.
    """
    # A handler that holds the interpreter for long would not let the listener see the end.
    end_with_parent()
    give_way()
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal is the parent's business
        signal.signal(number, signal.SIG_IGN)
    logs.configure(instance_id, wanted)
    wire = FrameSocket(socket.socket(fileno=descriptor), ToChild, frame_bytes)
    listener = _Listener(wire)
    Thread(target=listener.listen, name="listener", daemon=True).start()
    while True:
        job, cancelled = listener.jobs.get()
        began_at = monotonic()
        _answer(began_at, _do(job, cancelled, wire, listener.keep), wire)


if __name__ == "__main__":
    wanted = msgspec.json.decode(sys.argv[4], type=LogSettings)
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], wanted)
