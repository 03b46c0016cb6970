"""A log to be streamed: written by group commit, as a busy instance would have left it."""

import asyncio

from msgspec import Raw

from streams.jetstream.log import JetStreamLog
from streams.log import Origin
from streams.plan.events import Claimed, Completed, Event, Started, Submitted, TaskSpec
from tests.appending import append

TASKS_PER_PLAN = 100
EVENTS_PER_TASK = 3
WRITERS = 300
INPUT = Raw(b'{"text":"' + b"x" * 120 + b'"}')
ORIGIN = Origin(actor="bench", instance="bench:1:abcdef")


def submitted(tasks: int = TASKS_PER_PLAN) -> Submitted:
    """A plan of independent tasks without a worker here."""
    return Submitted(
        tasks=tuple(TaskSpec(id=f"t{n}", kind="bench", input=INPUT) for n in range(tasks))
    )


def life_of(owner: str) -> tuple[Event, ...]:
    """What one task leaves in the log."""
    return (
        Claimed(owner=owner, attempt=1, lease_s=60),
        Started(owner=owner, attempt=1),
        Completed(owner=owner, attempt=1, output=INPUT),
    )


async def fill(log: JetStreamLog, events: int) -> int:
    """Write whole plans until the log has about ``events``; its head."""
    plans = max(events // (1 + TASKS_PER_PLAN * EVENTS_PER_TASK), 1)
    places = iter([(f"p{plan}", task) for plan in range(plans) for task in range(TASKS_PER_PLAN)])

    async def writer(owner: str) -> None:
        for plan_id, task in places:
            await append(log, plan_id, f"t{task}", 0, *life_of(owner), origin=ORIGIN)

    submits = (
        append(log, f"p{plan}", None, 0, submitted(), origin=ORIGIN) for plan in range(plans)
    )
    await asyncio.gather(*submits)
    await asyncio.gather(*(writer(f"w{n}") for n in range(WRITERS)))
    return (await log.state()).head
