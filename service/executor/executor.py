"""The executor put together: dispatchers, heartbeats and handlers, each on threads of their own."""

import asyncio
from contextlib import suppress
from time import monotonic

import msgspec
import structlog

from service.core.bridge import Bridge
from service.executor.attempts.heartbeats import Heartbeats
from service.executor.attempts.reports import Reporter
from service.executor.dispatcher import Dispatcher
from service.executor.handlers.registry import load_handlers
from service.executor.handlers.secrets import Secrets
from service.executor.hosts.runner import HostRunner
from service.executor.hosts.status import HostStatus
from service.executor.limits import LIMITS, ExecutorLimits
from service.executor.running.calls import HandlerRunner
from service.executor.running.messages import setup_of
from service.executor.running.overruns import OverrunningHandler, Overruns
from service.executor.running.pool import WorkerPool
from service.executor.running.processes import ProcessWorkers
from service.executor.running.threads import ThreadRunner
from service.runtime.supervision import Supervision
from service.settings.config import Settings
from service.signals.audit.trail import Audit
from service.signals.loop_lag import Lag, MeasuredLoop
from service.signals.metrics.registry import Metrics
from service.signals.tracing.spans import Recorder

LAST_WORDS_S = 2.0  # after a drain's time-out and the handlers' grace: to write the releases
NO_ANSWER_S = 10.0  # after that: a dispatcher whose loop has ended meanwhile
GAUGES_S = 0.5

log = structlog.get_logger("holdfast.executor")


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What ``/v1/ops/status`` says of the executor; ``capacity`` is threads and waiting places.

    ``overruns`` are the handlers that hold a thread although their attempt is over.
    """

    alive: bool
    draining: bool
    in_flight: int
    queued: int
    capacity: int
    threads: int
    kinds: tuple[str, ...]
    hosts: tuple[HostStatus, ...]
    overruns: tuple[OverrunningHandler, ...]


class Executor:
    """Runs the tasks whose kinds it has handlers for. Lives on any loop; its work does not.

    Raises `service.settings.config.ConfigError` when a handler module cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        bridge: Bridge,
        metrics: Metrics,
        audit: Audit,
        instance_id: str,
        spans: Recorder | None = None,
        supervision: Supervision | None = None,
        limits: ExecutorLimits = LIMITS,
    ) -> None:
        executor = settings.executor
        self.handlers = load_handlers(executor, Secrets(settings.secrets))
        self.metrics = metrics
        self.audit = audit
        self.spans = spans
        self.reporter = Reporter(bridge, executor.instance_id, instance_id)
        self.heartbeats = Heartbeats(
            bridge, self.reporter, metrics, audit, executor.claim.heartbeat_s
        )
        self.limits = limits
        self.processes = ProcessWorkers(instance_id, limits)
        self._supervision = supervision or Supervision()
        self.overruns = Overruns()
        self.timeout_s = executor.execution.timeout_s
        self.timeout_retry_max = executor.execution.timeout_retry_max
        self._settings = settings
        self._instance_id = instance_id
        self._bridge = bridge
        self.threads: list[MeasuredLoop] = []
        self.dispatchers: list[Dispatcher] = []
        self._gauges: asyncio.Task[None] | None = None
        self._draining = False

    async def start(self) -> None:
        """Start every thread and process, and begin to claim."""
        self.heartbeats.start(self._supervision)
        worker = self._settings.executor.worker
        if worker.hosts:  # no user code runs here, and each way between two loops costs time
            self.dispatchers.append(await self._dispatcher(0, 1))
        else:
            # A loop without a worker thread of its own would have nothing to dispatch to.
            loops = min(self._settings.scheduling.task_executor.pool_size, worker.core_size)
            for index in range(loops):
                await self._start_loop(index, loops)
        self._gauges = asyncio.create_task(self._show_gauges())
        self._supervision.watch("executor, gauges", self._gauges)

    async def _start_loop(self, index: int, loops: int) -> None:
        thread = MeasuredLoop(f"executor-{index}", "executor", self.metrics)
        thread.start(self._supervision)
        self.threads.append(thread)
        self.dispatchers.append(await thread.ask(self._dispatcher(index, loops)))

    async def drain(self, timeout_s: float) -> None:
        """Claim no more, let running tasks end within ``timeout_s``, release the others, stop.

        Takes at most ``timeout_s`` and a few seconds more: cancelled handlers have a grace, and
        releases have to be written. May be called more than once.
        """
        self._draining = True
        until = monotonic() + timeout_s
        give_up_at = until + self.limits.grace_s + LAST_WORDS_S
        if self.threads:
            pairs = zip(self.threads, self.dispatchers, strict=True)
            drains = [
                _drained(thread, dispatcher, until, give_up_at)
                for thread, dispatcher in pairs
                if thread.alive  # with a dead loop its leases are left to their expiry
            ]
        else:
            drains = [each.drain(until, give_up_at) for each in self.dispatchers]
        await asyncio.gather(*drains)
        await self.heartbeats.stop()
        for thread in self.threads:
            await thread.stop()
        self.threads, self.dispatchers = [], []
        self.processes.close()
        await self._stop_gauges()

    def snapshot(self) -> Snapshot:
        """How busy it is; from any thread."""
        pools = [dispatcher.pool for dispatcher in self.dispatchers]
        ticking = bool(pools) and all(each.alive for each in self.dispatchers)
        alive = ticking and self.heartbeats.alive
        return Snapshot(
            alive=alive,
            draining=self._draining,
            in_flight=sum(pool.running for pool in pools),
            queued=sum(pool.queued for pool in pools),
            capacity=sum(pool.capacity for pool in pools),
            threads=self._settings.executor.worker.core_size,
            kinds=tuple(sorted(self.handlers)),
            hosts=tuple(host for each in self.dispatchers for host in each.runner.hosts()),
            overruns=self.overruns.all(),
        )

    def lags(self) -> list[Lag]:
        """How late each of its loops is."""
        return [self.heartbeats.lag, *(thread.lag for thread in self.threads)]

    async def _dispatcher(self, index: int, loops: int) -> Dispatcher:
        """On its loop: one dispatcher with its share of the workers and waiting places."""
        settings = self._settings.executor
        worker = settings.worker
        pool = WorkerPool(
            _share(worker.core_size, index, loops),
            _share(worker.queue_capacity, index, loops),
        )
        runner = self._runner(f"worker-{index}", _share(worker.hosts, index, loops))
        await runner.open()
        dispatcher = Dispatcher(
            self._bridge,
            self,
            self.handlers,
            pool,
            runner,
            settings.claim,
            settings.poll_interval_s,
        )
        dispatcher.start(f"executor-{index}, claiming", self._supervision)
        return dispatcher

    def _runner(self, name: str, processes: int) -> HandlerRunner:
        """On a dispatcher's loop: where its handlers run."""
        threads = ThreadRunner(name, self.processes, self.spans)
        if not processes:
            return threads
        setup = setup_of(self._settings, self._instance_id, spans=self.spans is not None)
        return HostRunner(processes, setup, threads, self.limits, self.spans, self._host_replaced)

    def _host_replaced(self) -> None:
        self.metrics.count("agent.task.worker.host.replaced.total")

    async def _show_gauges(self) -> None:
        while True:
            self._set_gauges()
            await asyncio.sleep(GAUGES_S)

    def _set_gauges(self) -> None:
        now = self.snapshot()
        self.metrics.set("agent.task.worker.inflight.current", now.in_flight)
        self.metrics.set("agent.task.worker.queue.current", now.queued)
        self.metrics.set("agent.task.worker.capacity", now.capacity)
        self.metrics.set("agent.task.worker.overrun.current", len(now.overruns))
        resident = sum(each.memory_bytes for each in now.hosts)
        self.metrics.set("agent.task.worker.host.memory", resident)

    async def _stop_gauges(self) -> None:
        if self._gauges is not None:
            self._gauges.cancel()
            with suppress(asyncio.CancelledError):
                await self._gauges
            self._set_gauges()
            self._gauges = None


async def _drained(
    thread: MeasuredLoop, dispatcher: Dispatcher, until: float, give_up_at: float
) -> None:
    """Drain it; one whose loop ends meanwhile never answers."""
    try:
        async with asyncio.timeout(max(give_up_at - monotonic(), 0) + NO_ANSWER_S):
            await thread.ask(dispatcher.drain(until, give_up_at))
    except TimeoutError:
        log.warning("drain_not_answered", loop=thread.name)
    except RuntimeError:
        if thread.alive:
            raise


def _share(total: int, index: int, parts: int) -> int:
    """The ``index``-th of ``parts`` nearly equal shares of ``total``."""
    return total // parts + (index < total % parts)
