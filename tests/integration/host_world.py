"""Runners of handlers on the test's loop, and what each call shows, keeps and ends with."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Literal

import msgspec
from msgspec import Raw

from holdfast_worker.cancellation import Cancellation
from holdfast_worker.handler import AnyHandler
from holdfast_worker.progress import Shown
from holdfast_worker.task import Assignment
from holdfast_worker.tokens import Usage
from service.executor.attempts.endings import Ending, Success
from service.executor.handlers.registry import load_handlers
from service.executor.hosts.runner import HostRunner
from service.executor.limits import ExecutorLimits
from service.executor.running.calls import HandlerCall, HandlerRunner
from service.executor.running.messages import setup_of
from service.executor.running.processes import ProcessWorkers
from service.executor.running.threads import ThreadRunner
from service.settings.loading import load_settings
from service.signals.tracing.spans import Span

Design = Literal["threads", "hosts"]
MODULES = ("tests.integration.host_handlers", "tests.unit.executor_handlers")
IMPATIENT = ExecutorLimits(grace_s=0.1, kill_after_s=0.2)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Called:
    """One call: its ending, and what came of it until then."""

    def __init__(self, over: "asyncio.Future[Ending]", cancelled: Cancellation) -> None:
        self.over = over
        self.cancelled = cancelled
        self.shown: list[Shown] = []
        self.kept: dict[str, Any] = {}
        self.began: list[float] = []

    async def ending(self) -> Ending:
        async with asyncio.timeout(15):
            return await asyncio.shield(self.over)

    async def output(self) -> Any:
        ending = await self.ending()
        assert isinstance(ending, Success), ending
        return msgspec.json.decode(ending.output)


class CallWorld:
    """A runner and calls of the handlers that tests have."""

    def __init__(self, runner: HandlerRunner, handlers: Mapping[str, AnyHandler]) -> None:
        self.runner = runner
        self.replaced = Counter[str]()
        self.spans: list[Span] = []
        self.keep_error: BaseException | None = None
        self._handlers = handlers
        self._numbers = count()

    def ended(self, span: Span) -> None:
        self.spans.append(span)

    def call(self, kind: str, input: object = None, type: Any = "worker") -> Called:
        number, cancelled = next(self._numbers), Cancellation()

        def keep(key: str, value: Raw, _: Usage | None) -> "Future[bool]":
            called.kept[key] = msgspec.json.decode(value)
            stored = Future[bool]()
            if self.keep_error is not None and not key.startswith("step/"):
                stored.set_exception(self.keep_error)
            else:
                stored.set_result(True)
            return stored

        nothing: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        called = Called(nothing, cancelled)
        called.over = self.runner.run(
            HandlerCall(
                handler=self._handlers[kind],
                work=_assignment(number, kind, input, type),
                cancelled=cancelled,
                show=called.shown.append,
                keep=keep,
                began=called.began.append,
            )
        )
        return called

    async def pid(self) -> int:
        """The process of the next call."""
        return await self.call("where").output()


@asynccontextmanager
async def calling_handlers(
    design: Design = "hosts", limits: ExecutorLimits = IMPATIENT, **worker: int
) -> AsyncGenerator[CallWorld]:
    """A runner of ``design`` with settings of ``executor.worker``; as many hosts as are set."""
    flags: dict[str, object] = {"executor.worker.processes": 1}
    flags |= {f"executor.worker.{name}": value for name, value in worker.items()}
    settings = load_settings(environment={}, flags={"executor.handlers": MODULES, **flags})
    processes, spans = ProcessWorkers("tests", limits), _Spans()
    threads = ThreadRunner("worker", processes, spans)
    replaced = Counter[str]()
    runner: HandlerRunner = threads
    if design == "hosts":
        runner = HostRunner(
            settings.executor.worker.hosts,
            setup_of(settings, "tests", spans=True),
            threads,
            limits,
            spans,
            lambda: replaced.update(["replaced"]),
        )
    await runner.open()
    world = CallWorld(runner, load_handlers(settings.executor))
    world.replaced, world.spans = replaced, spans.seen
    try:
        async with asyncio.timeout(30):
            while not runner.is_ready:
                await runner.ready()
        yield world
    finally:
        await runner.close()
        processes.close()


class _Spans:
    def __init__(self) -> None:
        self.seen: list[Span] = []

    def ended(self, span: Span) -> None:
        self.seen.append(span)


def _assignment(number: int, kind: str, input: object, type: Any) -> Assignment:
    return Assignment(
        plan_id="p",
        task_id=f"t{number}",
        kind=kind,
        type=type,
        attempt=1,
        fencing_token=7,
        retry=0,
        timeout_s=60.0,
        input=Raw(msgspec.json.encode(input)),
        context=Raw(b"{}"),
        dependencies={"before": Raw(b"[1]")},
        feedback=Raw(b"null"),
        traceparent=TRACE,
    )
