"""Full life cycles in process, submit to complete; against raw group-committed appends."""

import asyncio
import time
from collections.abc import AsyncGenerator

from msgspec import Raw

from service.app import Role
from service.core.core import Core
from service.core.results import ClaimRequest, OwnerAnswer, Submission
from streams.jetstream.log import JetStreamLog
from streams.log import Appended, Draft, Origin
from streams.plan.commands import Complete, Start
from streams.plan.events import Completed, Submitted, TaskSpec
from tests.bench import bed
from tests.bench.report import Result

TASKS_PER_PLAN = 100
PAYLOAD = Raw(b'{"text":"' + b"x" * 120 + b'"}')
NO_EXECUTOR: frozenset[Role] = frozenset({"api", "daemons"})


def plan_of(tasks: int) -> Submitted:
    """A plan of independent tasks that outside workers do."""
    return Submitted(
        tasks=tuple(TaskSpec(id=f"t{n}", kind="bench", input=PAYLOAD) for n in range(tasks))
    )


async def work_through(core: Core, plans: list[tuple[str, Submitted]], workers: int) -> float:
    """Submit all plans and let ``workers`` do every task, one at a time each; answers seconds."""
    total, done = sum(len(plan.tasks) for _, plan in plans), 0

    async def worker(owner: str) -> None:
        nonlocal done
        origin = Origin(actor=owner)
        while done < total:
            for claim in await core.claim(ClaimRequest(owner=owner, wait_s=0.5), origin):
                name = {"plan_id": claim.plan_id, "task_id": claim.task_id}
                held = {"owner": owner, "attempt": claim.attempt}
                started = await core.own(Start(**name, **held), origin)
                ended = await core.own(Complete(**name, **held, output=PAYLOAD), origin)
                if not (isinstance(started, OwnerAnswer) and isinstance(ended, OwnerAnswer)):
                    raise TypeError((started, ended))
                done += 1

    async def submit() -> None:
        for plan_id, plan in plans:
            answer = await core.submit(plan_id, plan, Origin(actor="bench"))
            if not isinstance(answer, Submission):
                raise TypeError(answer)

    began = time.perf_counter()
    await asyncio.gather(submit(), *(worker(f"w{n}") for n in range(workers)))
    return time.perf_counter() - began


async def raw_appends(url: str, callers: int, seconds: float) -> float:
    """Events per second that the same group commit writes when nothing is decided or folded."""
    log = await JetStreamLog.connect(url)
    until, written = time.perf_counter() + seconds, 0

    async def caller(n: int) -> None:
        nonlocal written
        expected, event = 0, Completed(owner=f"w{n}", attempt=1, output=PAYLOAD)
        while time.perf_counter() < until:
            draft = Draft(plan_id="raw", task_id=f"t{n}", expected=expected, events=(event,))
            answer = await log.append(draft)
            if not isinstance(answer, Appended):
                raise TypeError(answer)
            expected, written = answer.sequence, written + 1

    began = time.perf_counter()
    await asyncio.gather(*(caller(n) for n in range(callers)))
    took_s = time.perf_counter() - began
    await log.close()
    return written / took_s


async def measure(scale: float) -> AsyncGenerator[Result]:
    """64 and 256 concurrent workers."""
    for workers in (64, 256):
        tasks = int(12_000 * scale) // TASKS_PER_PLAN * TASKS_PER_PLAN
        with bed.nats() as server:
            raw = await raw_appends(server.url, workers, 3.0)
        with bed.nats() as server:
            async with bed.instance(server.url, NO_EXECUTOR) as it:
                plans = [(f"p{n}", plan_of(TASKS_PER_PLAN)) for n in range(tasks // TASKS_PER_PLAN)]
                cpu = time.process_time()
                took_s = await work_through(it.core, plans, workers)
                cpu = time.process_time() - cpu
                events = it.core.board.sequence
        yield Result(
            measure=f"life cycles in process, {workers} workers",
            value=tasks / took_s,
            unit="tasks/s",
            at_least=4_000,
            seen={"cpu_us_per_event": cpu / events * 1e6, "loop_busy": cpu / took_s},
        )
        yield Result(
            measure=f"  events against raw appends, {workers} callers",
            value=events / took_s / raw,
            unit="ratio",
            at_least=0.2,
            seen={"events_per_s": events / took_s, "raw_per_s": raw},
        )
