"""One claimed task from its dispatch to its result: wait for a thread, start, run, report."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, TypedDict

import structlog
from msgspec.structs import replace
from structlog.contextvars import bind_contextvars

from holdfast_worker.cancellation import StopReason
from holdfast_worker.handler import AnyHandler
from holdfast_worker.progress import Shown
from service.core.answers import AcceptedWrite
from service.executor.attempts.checkpoints import Checkpoints
from service.executor.attempts.endings import Ending, Failure, Success, failure_of
from service.executor.attempts.heartbeats import Heartbeats
from service.executor.attempts.leases import Lease
from service.executor.attempts.reports import Reporter, ReportOutcome
from service.executor.limits import ExecutorLimits
from service.executor.running.calls import HandlerCall, HandlerRunner
from service.executor.running.overruns import Overruns
from service.executor.running.pool import PoolPlace
from service.signals.audit.trail import Audit
from service.signals.metrics.registry import Metrics
from streams.log import TooLarge
from streams.plan import commands
from streams.plan.decisions import Invalid
from streams.plan.events import TokenUsage
from streams.plan.results import carried
from streams.traceparent import trace_id_of

log = structlog.get_logger("holdfast.executor")


class Workshop(Protocol):
    """What every attempt works with."""

    reporter: Reporter
    heartbeats: Heartbeats
    metrics: Metrics
    audit: Audit
    limits: ExecutorLimits
    overruns: Overruns
    timeout_s: float
    timeout_retry_max: int


class Attempt:
    """Carries one lease through; `run` never raises."""

    def __init__(
        self,
        lease: Lease,
        handler: AnyHandler,
        place: PoolPlace,
        runner: HandlerRunner,
        workshop: Workshop,
    ) -> None:
        self.lease = lease
        self._handler = handler
        self._place = place
        self._runner = runner
        self._shop = workshop
        self._trace_id = trace_id_of(lease.claim.traceparent)
        self._timeout_s = lease.claim.timeout_s

    async def run(self) -> None:
        """Do the task and report it; whatever goes wrong here is left to the lease's expiry."""
        bind_contextvars(trace_id=self._trace_id)  # in this attempt's own task
        self._shop.heartbeats.watch(self.lease)
        try:
            await self._run()
        except Exception:
            log.exception("attempt_abandoned", **self._named())
        finally:
            self._shop.heartbeats.forget(self.lease)
            self.lease.retire()
            self._place.close()

    async def _run(self) -> None:
        if not self._place.take_thread():
            await self._thread_or_stop()
        ending: Ending | None = None
        stopped = self.lease.cancellation.is_set()
        if not stopped and not self.lease.claim.started and not await self._started():
            return
        if not self.lease.cancellation.is_set():
            ending = await self._ended()
        self._place.leave()
        if (under_way := self.lease.retire()) is not None:
            await asyncio.wrap_future(under_way)
        await self._show_the_rest()
        await self._report(ending)

    async def _thread_or_stop(self) -> None:
        """Wait for a thread, unless the attempt is stopped before."""
        waiting = asyncio.ensure_future(self._place.thread())
        self._on_cancel(waiting.cancel)
        try:
            await waiting
        except asyncio.CancelledError:
            if not self.lease.cancellation.is_set():
                raise

    async def _started(self) -> bool:
        """Say that the work begins; the handler may run only if that is accepted."""
        answer = await self._say(commands.Start(**self.lease.held), self.lease.fence_at)
        if isinstance(answer, AcceptedWrite):
            return True
        log.warning("start_refused", **self._named(), answer=repr(answer))
        return False

    # -- the handler ------------------------------------------------------------------------

    async def _ended(self) -> Ending | None:
        """How the handler ended; an error of the executor itself is reported like the handler's."""
        try:
            return await self._executed()
        except Exception as error:
            log.exception("attempt_not_executed", **self._named())
            return failure_of(error)

    async def _executed(self) -> Ending | None:
        """Run the handler; None when it ignores its cancellation and is no longer waited for."""
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        kept = Checkpoints(self.lease, self._say, loop)
        work = self._begin(kept)
        self._place.hold(work)
        work.add_done_callback(lambda _: _settle(over))
        deadline = loop.call_later(self._timeout_s, self.lease.stop, "timeout")
        self._on_cancel(lambda: loop.call_later(self._shop.limits.grace_s, _settle, over))
        try:
            await over
        finally:
            deadline.cancel()
        if not work.done():
            log.warning(
                "handler_overruns",
                **self._named(),
                reason=self._reason,
                handler=self._handler.name,
                advice='declare it with pool="process", so that it can be ended',
            )
            self._shop.overruns.add(self.lease, self._handler)
            work.add_done_callback(self._ended_late)
            return None
        return work.result()

    def _begin(self, kept: Checkpoints) -> "asyncio.Future[Ending]":
        """Let the handler run; raises RuntimeError where the system has no more threads."""
        return self._runner.run(
            HandlerCall(
                handler=self._handler,
                work=self.lease.assignment(self._timeout_s),
                cancelled=self.lease.cancellation,
                show=self._show,
                keep=kept.keep,
                began=self._began,
            )
        )

    def _began(self, at: float) -> None:
        """The handler's first instruction was at ``at`` (monotonic); on any thread."""
        waited_s = max(at - self.lease.claimed_at, 0.0)
        self._shop.metrics.observe(
            "agent.task.claim_to_start.latency", waited_s, trace_id=self._trace_id
        )

    def _show(self, shown: Shown) -> None:
        if self.lease.show(shown):
            self._shop.heartbeats.show(self.lease)

    async def _show_the_rest(self) -> None:
        """Show what the handler showed last: no progress can follow a result."""
        if self._reason in ("lease_lost", "fenced", "plan_failed"):
            return
        while (word := self.lease.last_progress()) is not None:
            if not isinstance(await self._say(word, self.lease.fence_at), AcceptedWrite):
                return

    def _ended_late(self, _: asyncio.Future[Ending]) -> None:
        self._shop.overruns.remove(self.lease)
        log.warning("handler_ended_late", **self._named(), reason=self._reason)

    # -- the result -------------------------------------------------------------------------

    async def _report(self, ending: Ending | None) -> None:
        """Say how it ended, if it is still ours to say."""
        match self._reason:
            case "lease_lost" | "fenced":
                return
            case "timeout":
                message = f"the attempt ran longer than {self._timeout_s:g} s"
                failure = Failure(error_type="timeout", error_message=message, **_spent(ending))
                await self._fail(failure)
            case "plan_failed" | "draining" if not isinstance(ending, Success):
                await release(self._shop.reporter, self.lease, self._reason or "", ending)
            case _:
                if isinstance(ending, Success):
                    await self._complete(ending)
                elif ending is not None:
                    await self._fail(ending)

    async def _complete(self, success: Success) -> None:
        command = carried(commands.Complete, success, **self.lease.held)
        try:
            answer = await self._say(command, self.lease.can_end())
        except TooLarge as error:
            await self._fail(
                Failure(error_type="too_large", error_message=str(error), retryable=False)
            )
            return
        if isinstance(answer, Invalid):
            await self._fail(
                Failure(error_type="bad_output", error_message=answer.detail, retryable=False)
            )

    async def _fail(self, failure: Failure) -> None:
        most = self._shop.timeout_retry_max
        command = carried(commands.Fail, failure, **self.lease.held, timeout_retry_max=most)
        answer = await self._say(command, self.lease.can_end())
        if isinstance(answer, Invalid):  # better a bare report than none: the task would run again
            await self._say(
                replace(command, error_message=answer.detail, model_name=None, token_usage=None),
                self.lease.can_end(),
            )

    async def _say(self, command: commands.OwnerCommand, until: float) -> ReportOutcome:
        answer = await self._shop.reporter.say(command, until)
        if not isinstance(answer, AcceptedWrite):
            log.warning("owner_write_refused", **self._named(), answer=repr(answer))
        return answer

    @property
    def _reason(self) -> StopReason | None:
        return self.lease.cancellation.reason

    def _on_cancel(self, callback: Callable[[], object]) -> None:
        """Call back on this loop when the attempt is stopped."""
        loop = asyncio.get_running_loop()

        def stopped() -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(callback)

        self.lease.cancellation.on_cancel(stopped)

    def _named(self) -> dict[str, str | int]:
        return self.lease.named | {"kind": self.lease.claim.kind}


def _settle(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)


class _Spent(TypedDict):
    """What an attempt spent at a model, whatever became of it."""

    model_name: str | None
    token_usage: TokenUsage | None


def _spent(ending: Ending | None) -> _Spent:
    if ending is None:
        return _Spent(model_name=None, token_usage=None)
    return _Spent(model_name=ending.model_name, token_usage=ending.token_usage)


async def release(
    reporter: Reporter, lease: Lease, reason: str, ending: Ending | None = None
) -> ReportOutcome:
    """Give a lease back unspent; what its ``ending`` says of tokens is recorded."""
    command = commands.Release(**lease.held, reason=reason, **_spent(ending))
    return await reporter.say(command, lease.can_end())
