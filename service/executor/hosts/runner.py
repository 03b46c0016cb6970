"""Runs handlers in worker host processes: as many as are set, and each that ends is replaced."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from service.executor.attempts.endings import Ending
from service.executor.hosts.host import Host
from service.executor.hosts.process import END_S
from service.executor.hosts.status import HostStatus
from service.executor.limits import ExecutorLimits
from service.executor.running.calls import HandlerCall, HandlerRunner
from service.executor.running.messages import HostSetup
from service.signals.tracing.spans import Recorder

# Before a host is started in place of one that could not start, or was asked to end: that may be
# the whole service's end.
RESTART_S = 1.0
READY_S = 0.5  # how long a dispatcher waits before it looks whether it is to end


class HostRunner:
    """See `running.calls.HandlerRunner`. A call goes to the host that runs the fewest.

    A host in which a handler ignores that it has to stop gets no more work; it is ended when
    nothing else runs in it. At most as many of these as hosts there are, so that memory is bounded;
    one more keeps working until there is room. ``replaced`` is called for each new host in the
    place of another. Handlers with ``pool="process"`` run as ``otherwise`` does it, and those that
    no host could import, because they are of no module that a new process finds.
    """

    def __init__(
        self,
        processes: int,
        setup: HostSetup,
        otherwise: HandlerRunner,
        limits: ExecutorLimits,
        spans: Recorder | None = None,
        replaced: Callable[[], None] = lambda: None,
    ) -> None:
        self._processes = processes
        self._setup = setup
        self._otherwise = otherwise
        self._limits = limits
        self._spans = spans
        self._replaced = replaced
        self._hosts: list[Host] = []
        self._lives: set[asyncio.Task[None]] = set()
        self._ready = asyncio.Event()
        self._closed = False

    async def open(self) -> None:
        """Start the hosts, without waiting until they are ready: work waits for them."""
        await self._otherwise.open()
        for _ in range(self._processes):
            self._add()

    def run(self, call: HandlerCall) -> "asyncio.Future[Ending]":
        """Begin ``call``; see `running.calls.HandlerRunner.run`."""
        if call.handler.pool == "process":
            return self._otherwise.run(call)
        usable = [each for each in self._hosts if not each.retiring]
        host = min(usable, key=lambda each: (not each.ready, each.silent, each.running))
        if host.ready and call.handler.kind not in host.kinds:
            return self._otherwise.run(call)
        return host.run(call)

    @property
    def is_ready(self) -> bool:
        """Whether a host takes calls at once."""
        return self._ready.is_set()

    async def ready(self) -> None:
        """Wait until a host takes calls at once, at most `READY_S`."""
        if not self._ready.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ready.wait(), READY_S)

    async def close(self) -> None:
        """End every host, with what still runs in it."""
        self._closed = True
        for each in list(self._hosts):
            each.close()
        if self._lives:
            await asyncio.wait(self._lives, timeout=2 * END_S)
        await self._otherwise.close()

    @property
    def living(self) -> tuple[Host, ...]:
        """The hosts that have not ended, retiring ones too; any thread may ask."""
        return tuple(self._hosts)

    def hosts(self) -> tuple[HostStatus, ...]:
        """How each of them is; any thread may ask."""
        return tuple(each.status() for each in self.living)

    def _add(self, after_s: float = 0.0) -> None:
        host = Host(self._setup, self._limits, self._host_changed, self._may_retire, self._spans)
        self._hosts.append(host)
        life = asyncio.get_running_loop().create_task(host.live(after_s))
        self._lives.add(life)
        life.add_done_callback(self._lives.discard)

    def _may_retire(self) -> bool:
        return sum(each.retiring for each in self._hosts) < self._processes

    def _host_changed(self, host: Host) -> None:
        """A host is ready, has begun to retire, or has ended: then another takes its place."""
        if host.over:
            self._hosts.remove(host)
        if any(each.ready and not each.retiring for each in self._hosts):
            self._ready.set()
        else:
            self._ready.clear()
        if self._closed:
            return
        for _ in range(self._processes - sum(not each.retiring for each in self._hosts)):
            self._replaced()
            self._add(0.0 if host.ready and not host.leaving else RESTART_S)
        if host.over:
            for each in self._hosts:
                each.retire_if_stuck()
