"""Full life cycles in process, submit to complete; against raw group-committed appends."""

import asyncio
import time
from collections.abc import AsyncGenerator
from statistics import median

import msgspec
from msgspec import Raw

from service.app import Role
from service.core.answers import Claim, ClaimRequest, OwnerAnswer, Submission
from service.core.core import Core
from streams.jetstream.log import JetStreamLog
from streams.log import Appended, Draft, Origin
from streams.plan.commands import Complete, OwnerCommand, Start
from streams.plan.events import Completed, Submitted, TaskSpec
from tests.bench import bed
from tests.bench.report import Result, progress, spread

TASKS_PER_PLAN = 100
ROUNDS = 3  # interleaved
PATIENCE_S = 300.0
PAYLOAD = Raw(b'{"text":"' + b"x" * 120 + b'"}')
NO_EXECUTOR: frozenset[Role] = frozenset({"api", "daemons"})


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """What one run gave."""

    tasks_per_s: float
    events_per_s: float
    cpu_us_per_task: float
    cpu_us_per_event: float


def plan_of(tasks: int) -> Submitted:
    """A plan of independent tasks that outside workers do."""
    return Submitted(
        tasks=tuple(TaskSpec(id=f"t{n}", kind="bench", input=PAYLOAD) for n in range(tasks))
    )


async def work_through(
    core: Core,
    plans: list[tuple[str, Submitted]],
    workers: int,
    *,
    start_in_claim: bool = False,
    kinds: tuple[str, ...] | None = None,
) -> float:
    """Submit all plans and let ``workers`` do every task, one at a time each.

    Answers the seconds from the first submission to the last completed task.
    """
    total, done, ended_at = sum(len(plan.tasks) for _, plan in plans), 0, 0.0

    async def worker(owner: str) -> None:
        nonlocal done, ended_at
        origin = Origin(actor=owner)
        wanted = ClaimRequest(owner=owner, wait_s=0.5, start=start_in_claim, kinds=kinds)
        while done < total:
            for claim in await core.claim(wanted, origin):
                await _do(core, claim, owner, origin)
                done += 1
                ended_at = time.perf_counter()

    async def submit() -> None:
        for plan_id, plan in plans:
            answer = await core.submit(plan_id, plan, Origin(actor="bench"))
            if not isinstance(answer, Submission):
                raise TypeError(answer)

    began = time.perf_counter()
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(submit(), *(worker(f"w{n}") for n in range(workers)))
    return ended_at - began


async def _do(core: Core, claim: Claim, owner: str, origin: Origin) -> None:
    """Report one task as started, unless its claim did that already, and as completed."""
    name = {"plan_id": claim.plan_id, "task_id": claim.task_id}
    held = {"owner": owner, "attempt": claim.attempt}
    reports: list[OwnerCommand] = [] if claim.started else [Start(**name, **held)]
    for report in (*reports, Complete(**name, **held, output=PAYLOAD)):
        answer = await core.own(report, origin)
        if not isinstance(answer, OwnerAnswer):
            raise TypeError(answer)


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


async def life_cycles(
    tasks: int, workers: int, *, start_in_claim: bool, in_memory: bool = False
) -> Rates:
    """Tasks per second, CPU of this process per task and per event, and events per second.

    ``in_memory``: the log's batches are put together there.
    """
    async with (
        bed.nats_of(in_memory=in_memory) as server,
        bed.instance(server.url, NO_EXECUTOR) as it,
    ):
        plans = [(f"p{n}", plan_of(TASKS_PER_PLAN)) for n in range(tasks // TASKS_PER_PLAN)]
        cpu = time.process_time()
        took_s = await work_through(it.core, plans, workers, start_in_claim=start_in_claim)
        cpu = time.process_time() - cpu
        return Rates(
            tasks_per_s=tasks / took_s,
            events_per_s=it.core.board.sequence / took_s,
            cpu_us_per_task=cpu / tasks * 1e6,
            cpu_us_per_event=cpu / it.core.board.sequence * 1e6,
        )


async def measure(scale: float) -> AsyncGenerator[Result]:
    """64 and 256 concurrent workers: start reported, in the claim, and with batches in memory."""
    tasks = max(int(12_000 * scale) // TASKS_PER_PLAN, 1) * TASKS_PER_PLAN
    for workers, aim in ((64, 5_000), (256, 7_000)):
        raw: list[float] = []
        reported: list[Rates] = []
        in_claim: list[Rates] = []
        in_memory: list[Rates] = []
        for n in range(ROUNDS):
            progress(f"life cycles, {workers} workers, round {n + 1} of {ROUNDS}")
            with bed.nats() as server:
                raw.append(await raw_appends(server.url, workers, 3.0 * scale))
            reported.append(await life_cycles(tasks, workers, start_in_claim=False))
            in_claim.append(await life_cycles(tasks, workers, start_in_claim=True))
            in_memory.append(await life_cycles(tasks, workers, start_in_claim=True, in_memory=True))
        for what, rates, least in (
            ("", reported, None),
            (", start in the claim", in_claim, aim),
            (", and batches in memory", in_memory, aim),
        ):
            yield Result(
                measure=f"life cycles in process, {workers} workers{what}",
                value=median([each.tasks_per_s for each in rates]),
                unit="tasks/s",
                at_least=least,
                seen={
                    **spread([each.tasks_per_s for each in rates]),
                    "cpu_us_per_task": median([each.cpu_us_per_task for each in rates]),
                    "cpu_us_per_event": median([each.cpu_us_per_event for each in rates]),
                },
            )
        shares = [each.events_per_s / bare for each, bare in zip(reported, raw, strict=True)]
        yield Result(
            measure=f"  events against raw appends, {workers} callers",
            value=median(shares),
            unit="ratio",
            at_least=0.2,
            seen={**spread(shares), "raw_per_s": median(raw)},
        )
