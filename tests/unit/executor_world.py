"""A world for the executor in memory: a core that decides and folds like the real one, and metrics.

The rules are the real ones (`streams.plan.decide`, `streams.plan.state`); only the log is a counter
and a list. Faults on demand: `FakeCore.trouble` makes writes fail.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from threading import Lock
from typing import Any, cast

import msgspec
from msgspec import Raw

from projections.read_models.views import moment, moment_or_none, task_view
from service.core.answers import Claim, ClaimRequest, OwnerAnswer, Refused
from service.core.bridge import Bridge
from service.executor.executor import Executor
from service.executor.limits import LIMITS, ExecutorLimits
from service.runtime.supervision import Supervision
from service.settings.loading import load_settings
from streams.log import LogUnavailable, Origin, TooLarge
from streams.plan import commands, events
from streams.plan.commands import OwnerCommand
from streams.plan.decide import decide
from streams.plan.decisions import Accept, Duplicate
from streams.plan.evolve import begin, evolve
from streams.plan.outputs import output_at_hand
from streams.plan.results import NOTHING
from streams.plan.state import Plan, Task
from tests.unit import executor_handlers

PATIENCE_S = 30.0
USER_HANDLERS = (executor_handlers.__name__,)
IMPATIENT = ExecutorLimits(grace_s=0.05, kill_after_s=0.2)
UNAVAILABLE = LogUnavailable("the log does not answer")
# For leases that are to be lost, and for those that are not: a busy machine holds a process for
# longer than the first.
QUICK: dict[str, Any] = {"executor.claim.lease_s": 0.6, "executor.claim.heartbeat_s": 0.1}
RENEWED: dict[str, Any] = QUICK | {"executor.claim.lease_s": 30}


class FakeMetrics:
    """Counts by name; observations by name."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.counts: Counter[str] = Counter()
        self.labels: Counter[tuple[str, str]] = Counter()
        self.observed: dict[str, list[float]] = {}
        self.gauges: dict[str, float] = {}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        with self._lock:
            self.counts[name] += int(amount)
            for value in labels.values():
                self.labels[name, value] += int(amount)

    def observe(self, name: str, value: float, **_: str) -> None:
        with self._lock:
            self.observed.setdefault(name, []).append(value)

    def set(self, name: str, value: float, **_: str) -> None:
        with self._lock:
            self.gauges[name] = value


class FakeAudit:
    """Remembers what was counted."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []

    def wants(self, event: str) -> bool:
        return bool(event)

    def emit(self, event: str, **said: Any) -> None:
        self.told.append((event, said))

    def about(self, event: str) -> list[dict[str, Any]]:
        return [said for told, said in self.told if told == event]


class FakeCore:
    """What the executor asks of the core, on plans in memory."""

    def __init__(self) -> None:
        self.plans: dict[str, Plan] = {}
        self.sequence = 0
        self.said: list[OwnerCommand] = []
        self.origins: list[Origin] = []  # of claims and of owners' words
        self.requests: list[ClaimRequest] = []
        self.trouble: Callable[[OwnerCommand], Exception | None] = lambda _: None
        self.refuse: Callable[[OwnerCommand], Refused | None] = lambda _: None
        self.hold: Callable[[OwnerCommand], asyncio.Event | None] = lambda _: None
        self.claim_trouble: BaseException | None = None
        self.grant_more = 0
        self.refused: list[OwnerCommand] = []
        self.accepted: list[OwnerCommand] = []
        self._changed = asyncio.Event()
        self.claim_queue = self

    async def look_again(self, owner: str) -> None:
        assert {each.owner for each in self.requests} <= {owner}
        self._announce()

    def now(self) -> float:
        return time.time()

    def stream_now(self) -> float:
        return time.time()

    def submit(self, plan_id: str, *tasks: events.TaskSpec) -> Plan:
        plan = events.Submitted(tasks=tasks)
        self.sequence += 1
        self.plans[plan_id] = begin(plan_id, plan, sequence=self.sequence, at=self.now())
        self._announce()
        return self.plans[plan_id]

    async def claim(self, request: ClaimRequest, origin: Origin) -> list[Claim]:
        self.origins.append(origin)
        self.requests.append(request)
        if self.claim_trouble is not None:
            raise self.claim_trouble
        deadline = self.now() + request.wait_s
        while not (claims := self._take(request)) and (left_s := deadline - self.now()) > 0:
            if request.gone is not None and request.gone():
                return []
            changed = self._changed
            try:
                async with asyncio.timeout(min(left_s, 0.05)):
                    await changed.wait()
            except TimeoutError:
                continue
        return claims

    def _take(self, request: ClaimRequest) -> list[Claim]:
        claims: list[Claim] = []
        for plan in self.plans.values():
            for task in plan.tasks.values():
                wanted = request.kinds is None or task.spec.kind in request.kinds
                if wanted and len(claims) < request.limit + self.grant_more:
                    command = commands.Claim(
                        plan_id=plan.plan_id,
                        task_id=task.spec.id,
                        owner=request.owner,
                        lease_s=request.lease_s or task.spec.lease_s or request.default_lease_s,
                        start=request.start,
                    )
                    decision = decide(command, plan, self.now())
                    if isinstance(decision, Accept):
                        self._append(plan, decision)
                        claims.append(self._granted(plan, task, request))
        return claims

    def _granted(self, plan: Plan, task: Task, request: ClaimRequest) -> Claim:
        assert task.execution is not None
        return Claim(
            plan_id=plan.plan_id,
            task_id=task.spec.id,
            attempt=task.attempt,
            fencing_token=self.sequence,
            kind=task.spec.kind,
            type=task.spec.type,
            input=task.spec.input,
            context=plan.spec.context,
            dependencies={name: kept(plan.tasks[name]) for name in task.spec.depends_on},
            feedback=task.feedback,
            retry=task.retry,
            started=request.start,
            lease_until=moment(task.execution.claimed_at + task.lease_s),
            lease_s=task.lease_s,
            timeout_s=task.spec.timeout_s or request.default_timeout_s,
        )

    async def own(self, command: OwnerCommand, origin: Origin) -> OwnerAnswer | Refused:
        self.said.append(command)
        self.origins.append(origin)
        if (held := self.hold(command)) is not None:
            await held.wait()
        if (error := self.trouble(command)) is not None:
            raise error
        if (refused := self.refuse(command)) is not None:
            return refused
        plan = self.plans[command.plan_id]
        decision = decide(command, plan, self.now())
        if isinstance(decision, Accept):
            self._append(plan, decision)
            self.accepted.append(command)
        elif not isinstance(decision, Duplicate):
            self.refused.append(command)
            return decision
        task = plan.tasks[command.task_id]
        return OwnerAnswer(
            status="accepted" if isinstance(decision, Accept) else "duplicate",
            sequence=self.sequence,
            task=task_view(plan.plan_id, plan.created_at, task),
            lease_until=moment_or_none(task.lease_until),
            cancel_requested=plan.status in ("FAILED", "CANCELLED"),
        )

    async def own_many(
        self, words: Sequence[OwnerCommand], origin: Origin
    ) -> list[OwnerAnswer | Refused | TooLarge]:
        return list(await asyncio.gather(*(self._own(word, origin) for word in words)))

    async def _own(self, word: OwnerCommand, origin: Origin) -> OwnerAnswer | Refused | TooLarge:
        try:
            return await self.own(word, origin)
        except TooLarge as error:
            return error

    # -- what tests do ----------------------------------------------------------------------

    def do(self, command: commands.Command) -> None:
        """Carry out a command of any author."""
        plan = self.plans[command.plan_id]
        decision = decide(command, plan, self.now())
        assert isinstance(decision, Accept), decision
        self._append(plan, decision)

    def take_over(self, plan_id: str, task_id: str, owner: str = "thief") -> None:
        """Let another owner reclaim the task, as if its lease had run out."""
        task = self.plans[plan_id].tasks[task_id]
        task.lease_until = self.now() - 1
        self.do(commands.Claim(plan_id=plan_id, task_id=task_id, owner=owner))

    def task(self, plan_id: str, task_id: str) -> Task:
        return self.plans[plan_id].tasks[task_id]

    def words(self, kind: type[OwnerCommand], task_id: str | None = None) -> list[Any]:
        return [
            word for word in self.said if isinstance(word, kind) and task_id in (None, word.task_id)
        ]

    async def until(self, condition: Callable[[], object], why: str = "") -> None:
        """Wait until ``condition`` holds."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not condition():
                    await asyncio.sleep(0.002)
        except TimeoutError:
            states = {
                (plan.plan_id, task.spec.id): (task.status, task.result)
                for plan in self.plans.values()
                for task in plan.tasks.values()
            }
            raise AssertionError(f"never came true: {why}; {states}") from None

    def _append(self, plan: Plan, accept: Accept) -> None:
        for event in accept.events:
            self.sequence += 1
            ignored = evolve(plan, accept.task_id, event, sequence=self.sequence, at=self.now())
            assert ignored is None
        self._announce()

    def _announce(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class World:
    """A fake core, metrics, and the real executor on top."""

    def __init__(
        self,
        core: FakeCore,
        metrics: FakeMetrics,
        audit: FakeAudit,
        executor: Executor,
        supervision: Supervision,
    ) -> None:
        self.core = core
        self.metrics = metrics
        self.audit = audit
        self.executor = executor
        self.supervision = supervision

    async def finished(self, plan_id: str, task_id: str, status: str = "COMPLETED") -> Task:
        task = self.core.task(plan_id, task_id)
        await self.core.until(lambda: task.status == status, f"{task_id} is {status}")
        return task


@asynccontextmanager
async def executing(
    core: FakeCore | None = None,
    *,
    drain_s: float = 0.0,
    limits: ExecutorLimits = LIMITS,
    **flags: object,
) -> AsyncIterator[World]:
    """An executor with ``flags`` as settings (dots as double underscores), drained at the end."""
    core = core or FakeCore()
    metrics, audit = FakeMetrics(), FakeAudit()
    given = {key.replace("__", "."): value for key, value in flags.items()}
    settings = load_settings(
        environment={},
        flags={
            "executor.poll_interval_s": 0.05,
            "executor.instance_id": "w1",
            "executor.worker.processes": 0,  # tests look at what handlers did here
        }
        | given,
    )
    bridge = Bridge(cast("Any", core), asyncio.get_running_loop())
    supervision = Supervision()
    executor = Executor(
        settings, bridge, cast("Any", metrics), cast("Any", audit), "instance-1",
        supervision=supervision, limits=limits,
    )  # fmt: skip
    executor_handlers.let_go.clear()
    executor_handlers.seen.clear()
    await executor.start()
    try:
        yield World(core, metrics, audit, executor, supervision)
    finally:
        await executor.drain(drain_s)
        executor_handlers.let_go.set()


def spec(task_id: str, kind: str, input: object = None, **fields: object) -> events.TaskSpec:
    given: Any = fields
    return events.TaskSpec(id=task_id, kind=kind, input=Raw(msgspec.json.encode(input)), **given)


def json_of(raw: Raw) -> Any:
    return msgspec.json.decode(raw)


def kept(task: Task) -> Raw:
    """The output of a task that has completed."""
    output = output_at_hand(task)
    return NOTHING if output is None else output


def output_of(task: Task) -> Any:
    return json_of(kept(task))


def error_of(task: Task) -> tuple[str, str]:
    assert isinstance(task.result, events.Failed), task.result
    return task.result.error_type, task.result.error_message
