"""The worker host's side: runs what the executor sends, on threads and on one loop, until its end.

Plain handlers have threads, as many as run at once; async ones share one loop. The main thread
reads, so that neither can keep a stop or a new call from arriving.
"""

import logging
import os
import resource
import signal
import socket
import sys
from concurrent.futures import Future
from threading import Thread
from time import monotonic

from msgspec import Raw

from holdfast_worker.cancellation import Cancellation
from holdfast_worker.handler import AnyHandler
from holdfast_worker.logs import Notices
from holdfast_worker.progress import Shown
from holdfast_worker.running import HandlerLoop, HandlerThreads
from holdfast_worker.task import Assignment, Keep
from holdfast_worker.tokens import Usage
from service.executor.attempts.endings import Ending, Failure, failure_of
from service.executor.attempts.execution import Show, execute, execute_on_loop
from service.executor.handlers.registry import load_what_can_be
from service.executor.handlers.secrets import Secrets
from service.executor.hosts.outbox import GatheredProgress, Outbox
from service.executor.running.frames import FrameReader, FrameTooLarge, Garbled
from service.executor.running.messages import (
    HostCheckpoint,
    HostEnded,
    HostLeaving,
    HostPing,
    HostReady,
    HostSetup,
    HostSpan,
    HostStop,
    HostWork,
    Kept,
    KnownSecrets,
    ToHost,
    too_large,
)
from service.executor.running.unsettled import Unsettled
from service.runtime.child_process import end_with_parent, hide_memory
from service.runtime.masking import KNOWN
from service.runtime.tuning import give_large_blocks_back, give_way, switch_often
from service.settings.config import ConfigError
from service.signals import logs
from service.signals.tracing.spans import Span, recorder

READ_BYTES = 256 * 1024


class _Call:
    """One call of a handler in this process."""

    def __init__(self, run: int, handler: AnyHandler, work: Assignment) -> None:
        self.run = run
        self.handler = handler
        self.work = work
        self.cancelled = Cancellation()
        self.began_at = 0.0


class _SpansHome:
    """Sends spans to the executor, which exports them."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def ended(self, span: Span) -> None:
        """See `service.signals.tracing.spans.Recorder`."""
        self._outbox.send(HostSpan(span))


class WorkerHost:
    """What runs in this process."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._progress = GatheredProgress(outbox)
        self._unsettled = Unsettled()
        self._threads = HandlerThreads()
        self._loop = HandlerLoop(Notices())
        self._calls: dict[int, _Call] = {}
        self._handlers: dict[str, AnyHandler] = {}
        self._spans: _SpansHome | None = None

    def hear(self, message: ToHost) -> None:
        """Do what the executor asks for; does not wait for handlers."""
        match message:
            case HostWork():
                self._begin(message)
            case HostStop():
                if (call := self._calls.get(message.run)) is not None:
                    call.cancelled.cancel(message.reason)
            case Kept():
                self._unsettled.settle(message.number, message.failure)
            case KnownSecrets():
                KNOWN.know(message.values)
            case HostPing():
                self._outbox.send(message)
            case HostSetup():
                self._set_up(message)

    def _set_up(self, setup: HostSetup) -> None:
        logs.configure(setup.instance_id, setup.log)
        if setup.data_bytes:
            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            resource.setrlimit(resource.RLIMIT_DATA, (setup.data_bytes, hard))
        try:
            self._handlers, errors = load_what_can_be(setup.executor, Secrets(setup.secrets))
        except ConfigError as error:
            errors = [str(error)]
        self._spans = _SpansHome(self._outbox) if setup.spans else None
        self._outbox.send(HostReady(tuple(self._handlers), "; ".join(errors)))

    def _begin(self, asked: HostWork) -> None:
        handler = self._handlers.get(asked.work.kind)
        if handler is None:
            reason = f"a worker host process has no handler for {asked.work.kind!r}"
            failure = Failure(error_type="handler_error", error_message=reason)
            self._outbox.send(HostEnded(asked.run, monotonic(), failure))
            return
        call = self._calls[asked.run] = _Call(asked.run, handler, asked.work)
        try:
            if handler.is_async:
                self._loop.call(lambda: self._loop.spawn(self._run_on_loop(call)))
            else:
                self._threads.submit(lambda: self._run(call))
        except (RuntimeError, MemoryError) as error:  # no more threads
            self._end(call, failure_of(error))

    def _run(self, call: _Call) -> None:
        """On a thread."""
        call.began_at = monotonic()
        recorder.set(self._spans)
        self._end(
            call,
            execute(call.handler, call.work, call.cancelled, self._show(call), self._keep(call)),
        )

    async def _run_on_loop(self, call: _Call) -> None:
        """On the handlers' loop."""
        call.began_at = monotonic()
        recorder.set(self._spans)
        self._end(
            call,
            await execute_on_loop(
                call.handler, call.work, call.cancelled, self._show(call), self._keep(call)
            ),
        )

    def _show(self, call: _Call) -> Show:
        def show(shown: Shown) -> None:
            self._progress.show(call.run, shown)

        return show

    def _keep(self, call: _Call) -> Keep:
        def keep(key: str, value: Raw, usage: Usage | None) -> "Future[bool]":
            number, stored = self._unsettled.ask()
            self._outbox.send(HostCheckpoint(call.run, number, key, value, usage))
            return stored

        return keep

    def _end(self, call: _Call, ending: Ending) -> None:
        self._calls.pop(call.run, None)
        self._progress.send(call.run)
        began_at = call.began_at or monotonic()
        try:
            self._outbox.send(HostEnded(call.run, began_at, ending))
        except FrameTooLarge as error:
            self._outbox.send(HostEnded(call.run, began_at, too_large(error)))


def serve(connection: socket.socket, frame_bytes: int) -> None:
    """Do what comes over ``connection``; returns when the executor is gone."""
    outbox = Outbox(connection, frame_bytes)
    _leave_at_the_term_signal(outbox)
    host = WorkerHost(outbox)
    reader = FrameReader(ToHost, frame_bytes)
    try:
        while data := connection.recv(READ_BYTES):
            # Short calls end while others are handed over: their results cross together.
            with outbox.together():
                for message in reader.feed(data):
                    host.hear(message)
    except (OSError, Garbled):
        return


def _leave_at_the_term_signal(outbox: Outbox) -> None:
    """Finish what runs and take no more: the executor ends the process when nothing runs in it.

    The signal may come to the whole service, whose drain needs this process.
    """

    def leave(*_: object) -> None:
        # A thread, because the interrupted one may hold a lock of the outbox.
        Thread(target=outbox.send, args=(HostLeaving(),), daemon=True).start()

    signal.signal(signal.SIGTERM, leave)


def main(descriptor: int, frame_bytes: int) -> None:
    """Serve the executor at the socket ``descriptor``; ends the process."""
    end_with_parent()  # a handler that holds the interpreter would not let us see the parent's end
    hide_memory()
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal is the parent's business
        signal.signal(number, signal.SIG_IGN)
    os.set_inheritable(descriptor, False)  # noqa: FBT003 - programs of handlers do not get it
    give_way()
    switch_often()
    give_large_blocks_back()
    serve(socket.socket(fileno=descriptor), frame_bytes)
    for handler in logging.getLogger().handlers:
        handler.flush()
    os._exit(0)  # not sys.exit: handlers may still run, and nothing waits for them


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
