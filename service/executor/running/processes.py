"""Runs handlers that ask for ``pool="process"`` in child processes, one per busy worker thread.

A child is kept for the next task. One that is killed (by the kernel, for memory) costs only the
task it ran: its thread sees the end of the connection, reports it, and starts a new child next
time. Unlike a thread, a child that ignores its cancellation is killed.
"""

import signal
import socket
import subprocess
from collections import deque
from contextlib import suppress
from threading import Lock, Timer
from typing import Any

import msgspec

from holdfast_worker.cancellation import Cancellation
from holdfast_worker.handler import AnyHandler
from holdfast_worker.task import Assignment, Keep
from service.executor.attempts.endings import Ending, Failure
from service.executor.attempts.execution import Show
from service.executor.limits import LIMITS, ExecutorLimits
from service.executor.running.frames import FrameReader, FrameTooLarge, Garbled, frame_of
from service.executor.running.messages import (
    FromChild,
    HostCheckpoint,
    HostEnded,
    HostProgress,
    HostStop,
    HostWork,
    Kept,
    KnownSecrets,
    not_sent,
)
from service.executor.running.unsettled import store
from service.runtime.masking import KNOWN
from service.runtime.wired_process import start_with_socket
from service.signals import logs

END_S = 1.0
READ_BYTES = 256 * 1024


class FrameSocket:
    """Frames over a socket that blocks."""

    def __init__(self, connection: socket.socket, expected: Any, frame_bytes: int) -> None:  # noqa: ANN401 - a type
        self._connection = connection
        self._frame_bytes = frame_bytes
        self._reader = FrameReader(expected, frame_bytes)
        self._received: deque[Any] = deque()
        self._lock = Lock()

    def send(self, message: msgspec.Struct) -> None:
        """Write one message; any thread may.

        Raises OSError when the other side is gone, FrameTooLarge.
        """
        frame = frame_of(message, self._frame_bytes)
        with self._lock:
            self._connection.sendall(frame)

    def receive(self) -> Any:  # noqa: ANN401
        """Block for the next message; None when the other side is gone. Raises Garbled."""
        while not self._received:
            try:
                data = self._connection.recv(READ_BYTES)
            except OSError:
                return None
            if not data:
                return None
            self._received.extend(self._reader.feed(data))
        return self._received.popleft()

    def close(self) -> None:
        """Let the other side see the end."""
        self._connection.close()


class ProcessWorkers:
    """Children that wait for work; a busy one belongs to the worker thread that took it."""

    def __init__(self, instance_id: str = "", limits: ExecutorLimits = LIMITS) -> None:
        self._instance_id = instance_id
        self._limits = limits
        self._lock = Lock()
        self._idle: list[_Child] = []
        self._all: set[_Child] = set()
        self._closed = False

    def execute(
        self, handler: AnyHandler, work: Assignment, cancelled: Cancellation, show: Show, keep: Keep
    ) -> Ending:
        """Run ``handler`` in a child on behalf of this thread, to its end; never raises."""
        try:
            child = self._take()
        except OSError as error:
            return Failure(error_type="process_died", error_message=f"no process: {error}")
        ending: Ending | None = None
        try:
            ending = child.run(HostWork(0, work, handler.module), cancelled, show, keep)
        except FrameTooLarge as error:
            ending = not_sent(error)
        finally:
            if ending is None:
                self._bury(child)
        if ending is None:
            return child.post_mortem(cancelled)
        self._put_back(child)
        return ending

    def close(self) -> None:
        """End every child, busy ones too."""
        with self._lock:
            self._closed = True
            children, self._all, self._idle = list(self._all), set(), []
        for child in children:
            child.close()

    def _take(self) -> "_Child":
        with self._lock:
            while self._idle:
                if (child := self._idle.pop()).alive:
                    return child
                self._all.discard(child)
        child = _Child(self._instance_id, self._limits)
        with self._lock:
            self._all.add(child)
        return child

    def _bury(self, child: "_Child") -> None:
        child.close()
        with self._lock:
            self._all.discard(child)

    def _put_back(self, child: "_Child") -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(child)
                return
        child.close()


class _Child:
    """One child process and the wire to it."""

    def __init__(self, instance_id: str, limits: ExecutorLimits) -> None:
        look = msgspec.json.encode(logs.in_force()).decode()
        self._process, connection = start_with_socket(
            "service.executor.running.process_child", str(limits.frame_bytes), instance_id, look
        )
        self._wire = FrameSocket(connection, FromChild, limits.frame_bytes)
        self._kill_after_s = limits.kill_after_s
        self._garbled: Garbled | None = None
        self._known: frozenset[str] = frozenset()
        self._current: Cancellation | None = None
        self._stopping = Lock()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def run(self, job: HostWork, cancelled: Cancellation, show: Show, keep: Keep) -> Ending | None:
        """The job's ending; None when the child died or had to be killed."""
        killer = Timer(self._kill_after_s, self._process.kill)
        killer.daemon = True
        try:
            with self._stopping:
                self._current = cancelled
                if self._known != (known := KNOWN.values):
                    self._wire.send(KnownSecrets(tuple(known)))
                    self._known = known
                self._wire.send(job)
            cancelled.on_cancel(lambda: self._stop(cancelled, killer))
            while isinstance(message := self._wire.receive(), HostProgress | HostCheckpoint):
                if isinstance(message, HostProgress):
                    show(message.shown)
                else:
                    store(keep, message, self._kept)
        except Garbled as error:
            self._garbled = error
            return None
        except OSError:
            return None
        finally:
            with self._stopping:
                self._current = None
            killer.cancel()
        # A child may receive the stop after its attempt's end, while it runs another task.
        if cancelled.is_set():
            return None
        return message.ending if isinstance(message, HostEnded) else None

    def _kept(self, answer: Kept) -> None:
        with suppress(OSError):  # the child has ended
            self._wire.send(answer)

    def post_mortem(self, cancelled: Cancellation) -> Failure:
        """What its death is reported as."""
        code = self._process.returncode
        if cancelled.is_set():
            return Failure(error_type="cancelled", error_message=f"stopped: {cancelled.reason}")
        if self._garbled is not None:
            message = (
                f"the handler's process sent what cannot be read, and was ended: {self._garbled}"
            )
            return Failure(error_type="process_died", error_message=message)
        if code == -signal.SIGKILL:
            message = "the handler's process was killed (SIGKILL), most likely for its memory"
            return Failure(error_type="out_of_memory", error_message=message)
        message = f"the handler's process ended with code {code}"
        return Failure(error_type="process_died", error_message=message)

    def close(self) -> None:
        """End the process by closing its pipe; one that goes on is killed."""
        self._wire.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _stop(self, cancelled: Cancellation, killer: Timer) -> None:
        with self._stopping:
            if self._current is not cancelled or cancelled.reason is None:
                return  # the child has long been doing something else
            killer.start()
            try:
                self._wire.send(HostStop(0, cancelled.reason))
            except OSError:
                self._process.kill()
