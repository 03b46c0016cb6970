"""One worker host process as the executor sees it: its calls and its end."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import Context, copy_context
from itertools import count
from typing import Any

import structlog

from service.executor.attempts.endings import Ending, Failure
from service.executor.hosts.connection import HostConnection
from service.executor.hosts.process import HostProcess
from service.executor.hosts.status import HostState, HostStatus
from service.executor.limits import ExecutorLimits
from service.executor.running.calls import HandlerCall
from service.executor.running.frames import FrameTooLarge
from service.executor.running.messages import (
    FromHost,
    HostCheckpoint,
    HostEnded,
    HostLeaving,
    HostPing,
    HostProgress,
    HostReady,
    HostSetup,
    HostSpan,
    HostStop,
    HostWork,
    Kept,
    KnownSecrets,
    not_sent,
)
from service.executor.running.unsettled import store
from service.runtime.masking import KNOWN
from service.signals.tracing.spans import Recorder

ADVICE = "handlers of a module that a new process can import run in worker host processes"
REST_S = 0.5  # how long what a dead process has written is waited for

log = structlog.get_logger("holdfast.executor")


class _HostedCall:
    """A call in the host; ``given_up``: its handler ignored that it had to stop."""

    def __init__(self, call: HandlerCall, over: "asyncio.Future[Ending]") -> None:
        self.call = call
        self.over = over
        self.given_up = False
        self.context: Context = copy_context()  # so that lines logged here bear the attempt's trace


class Host:
    """A process and what it runs; lives on one loop. Work sent before its start waits for it.

    ``changed`` is called when it is ready, when it retires, and once it has ended and all its
    calls have an ending. A host that is stuck (a handler ignores its stop, or nothing comes from
    it) retires only when ``may_retire()`` says that there is room for another. It takes calls of
    ``kinds`` once it is ready.
    """

    def __init__(
        self,
        setup: HostSetup,
        limits: ExecutorLimits,
        changed: Callable[["Host"], None],
        may_retire: Callable[[], bool],
        spans: Recorder | None = None,
    ) -> None:
        self.retiring = False
        self.ready = False
        self.kinds: frozenset[str] = frozenset()
        self.leaving = False
        self.over = False
        self.end_wanted = False
        self._limits = limits
        self._changed = changed
        self._may_retire = may_retire
        self._spans = spans
        self._loop = asyncio.get_running_loop()
        self._numbers = count()
        self._calls: dict[int, _HostedCall] = {}
        self._process: HostProcess | None = None
        self._known: frozenset[str] = frozenset()
        self._refused = ""
        self._connection = HostConnection(limits, self._heard, self._said_nothing, self._kill)
        self._send = self._connection.send
        self._send(setup)

    # -- its life ---------------------------------------------------------------------------

    async def live(self, after_s: float = 0.0) -> None:
        """Start the process after ``after_s`` and stay until it has ended."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._connection.lost.wait(), after_s)
        try:
            if not self.end_wanted:
                await self._start()
        except OSError as error:
            self._refused = f"no worker host process could be started: {error}"
        except asyncio.CancelledError:  # the loop ends
            self.close()
            if self._process is not None:
                self._process.end()
            raise
        self._settle()
        self.over = True
        self._changed(self)

    def retire(self) -> None:
        """Take no more work; end when nothing runs that may still end."""
        if not self.retiring:
            self.retiring = True
            self._changed(self)
        self._end_if_idle()

    def retire_if_stuck(self) -> None:
        """Take no more work, if there is room: a handler ignores its stop, or nothing comes."""
        if (self.given_up or self.silent) and not self.retiring and self._may_retire():
            self.retire()

    def close(self) -> None:
        """End the process, whatever it runs."""
        self.retiring = self.end_wanted = True
        self._connection.lost.set()
        self._connection.abort()

    @property
    def running(self) -> int:
        """How many calls have not ended."""
        return len(self._calls)

    @property
    def silent(self) -> bool:
        """Whether it does not answer: it is frozen, or one of its handlers holds it."""
        return self.ready and self._connection.is_silent

    @property
    def given_up(self) -> int:
        """How many of them are no longer waited for."""
        return sum(each.given_up for each in list(self._calls.values()))

    @property
    def pid(self) -> int | None:
        """The process; None before its start."""
        return None if self._process is None else self._process.pid

    def status(self) -> HostStatus:
        """How it is, for operators; any thread may ask."""
        process = self._process
        return HostStatus(
            pid=self.pid or 0,
            state=self._state(),
            running=self.running,
            overrunning=self.given_up,
            memory_bytes=0 if process is None or self.over else process.resident_bytes(),
        )

    def _state(self) -> HostState:
        if self.retiring:
            return "retiring"
        if not self.ready:
            return "starting"
        return "silent" if self.silent else "ready"

    # -- calls ------------------------------------------------------------------------------

    def run(self, call: HandlerCall) -> "asyncio.Future[Ending]":
        """Send ``call`` to the host; the future has its ending, whatever becomes of the host."""
        over: asyncio.Future[Ending] = self._loop.create_future()
        if self._known is not (known := KNOWN.values):
            self._known = known
            self._send(KnownSecrets(tuple(known)))
        number = next(self._numbers)
        try:
            self._send(HostWork(number, call.work))
        except FrameTooLarge as error:
            over.set_result(not_sent(error))
            return over
        self._calls[number] = _HostedCall(call, over)
        call.cancelled.on_cancel(lambda: self._soon(lambda: self._stop(number)))
        return over

    def _stop(self, number: int) -> None:
        hosted = self._calls.get(number)
        if hosted is not None and (reason := hosted.call.cancelled.reason) is not None:
            self._send(HostStop(number, reason))
            self._loop.call_later(self._limits.grace_s, self._give_up, number)

    def _give_up(self, number: int) -> None:
        """The handler ignores its stop: the host is ended when nothing else runs in it."""
        hosted = self._calls.get(number)
        if hosted is None:
            return
        if not self.ready:  # it has not begun, and what the host reads next is that it has to stop
            del self._calls[number]
            _settle(hosted.over, _lost(hosted, "", 0))
        else:
            hosted.given_up = True
            self.retire_if_stuck()

    def _end_if_idle(self) -> None:
        if not self.retiring or self.given_up < self.running:
            return
        if self._calls:  # the handlers are named for a while before they are ended
            self._loop.call_later(self._limits.kill_after_s, self._kill_if_stuck)
        else:
            self.close()

    def _kill_if_stuck(self) -> None:
        if self._calls and self.given_up == self.running and not self.over:
            log.error("host_ignores_stop", pid=self.pid, handlers=self._names())
            self._kill()

    def _names(self) -> list[str]:
        return sorted({each.call.handler.name for each in self._calls.values()})

    # -- what the host says -----------------------------------------------------------------

    def _heard(self, messages: Iterable[FromHost]) -> None:
        for message in messages:
            self._hear(message)
        self._end_if_idle()

    def _hear(self, message: FromHost) -> None:
        match message:
            case HostEnded() | HostProgress() | HostCheckpoint():
                if (hosted := self._calls.get(message.run)) is not None:
                    hosted.context.run(self._hear_of, hosted, message)
            case HostSpan():
                if self._spans is not None:
                    self._spans.ended(message.span)
            case KnownSecrets():
                KNOWN.know(message.values)
            case HostLeaving():
                log.info("host_retires", pid=self.pid, running=self.running)
                self.leaving = True
                self.retire()
            case HostPing():
                pass  # that it is heard is enough
            case HostReady():
                self._is_ready(message)

    def _is_ready(self, said: HostReady) -> None:
        self.ready, self.kinds = True, frozenset(said.kinds)
        if said.unusable:
            log.warning("handlers_run_on_threads", pid=self.pid, error=said.unusable, advice=ADVICE)
        self._changed(self)

    def _said_nothing(self) -> None:
        if not self.ready:
            log.warning("host_not_ready", pid=self.pid, advice="the import of its handlers lasts")
        elif not self.retiring:
            log.error("host_does_not_answer", pid=self.pid, handlers=self._names())
            self.retire_if_stuck()

    def _hear_of(
        self, hosted: _HostedCall, message: HostEnded | HostProgress | HostCheckpoint
    ) -> None:
        match message:
            case HostEnded():
                del self._calls[message.run]
                hosted.call.began(message.began_at)
                _settle(hosted.over, message.ending)
            case HostProgress():
                hosted.call.show(message.shown)
            case HostCheckpoint():
                store(hosted.call.keep, message, self._kept)

    def _kept(self, answer: Kept) -> None:
        self._soon(lambda: self._send(answer))

    def _soon(self, action: Callable[[], Any]) -> None:
        """Do it on the loop; any thread may ask."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(action)

    # -- the process ------------------------------------------------------------------------

    async def _start(self) -> None:
        self._process = process = HostProcess(self._limits.frame_bytes)
        await self._loop.create_unix_connection(lambda: self._connection, sock=process.connection)
        process.watch(lambda: self._loop.call_later(REST_S, self._connection.lost.set))
        await self._connection.lost.wait()
        self._connection.abort()
        await process.wait()

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _settle(self) -> None:
        """Give every call that has no ending the end of the process as its own."""
        calls, self._calls = self._calls, {}
        how = self._refused or self._how_it_ended()
        if not self.end_wanted:
            log.error("host_ended", pid=self.pid, how=how, calls=len(calls))
        for hosted in calls.values():
            _settle(hosted.over, _lost(hosted, how, len(calls) - 1))

    def _how_it_ended(self) -> str:
        if (garbled := self._connection.garbled) is not None:
            return f"the worker host process sent what cannot be read: {garbled}"
        return "it was not started" if self._process is None else self._process.how_it_ended()


def _lost(hosted: _HostedCall, how: str, others: int) -> Failure:
    """What a call that went down with its host is reported as."""
    if (reason := hosted.call.cancelled.reason) is not None:
        return Failure(error_type="cancelled", error_message=f"stopped: {reason}")
    beside = f", with {others} other tasks in it" if others else ""
    return Failure(error_type="process_died", error_message=how + beside)


def _settle(over: "asyncio.Future[Ending]", ending: Ending) -> None:
    if not over.done():
        over.set_result(ending)
