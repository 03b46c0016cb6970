"""The few drafts and readings that contract tests are written with."""

import asyncio
from contextlib import aclosing

from streams.log import Appended, BadFact, Conflict, Draft, Fact, Log
from streams.plan.events import Claimed, Event, Paused, Started, Submitted, TaskSpec

CLAIMED = Claimed(owner="w1", attempt=1, lease_s=15)
STARTED = Started(owner="w1", attempt=1)
SUBMITTED = Submitted(name="demo", tasks=(TaskSpec(id="t", kind="echo"),))
PAUSED = Paused(reason="lunch")


def on_task(task_id: str, expected: int = 0, *events: Event, plan_id: str = "p") -> Draft:
    """A draft on one task's subject; a claim unless told."""
    return Draft(plan_id=plan_id, task_id=task_id, expected=expected, events=events or (CLAIMED,))


def on_plan(plan_id: str, expected: int = 0, *events: Event) -> Draft:
    """A draft on a plan's own subject; its submission unless told."""
    return Draft(plan_id=plan_id, task_id=None, expected=expected, events=events or (SUBMITTED,))


async def won(log: Log, draft: Draft) -> int:
    """Append what must be accepted; its sequence."""
    outcome = await log.append(draft)
    assert isinstance(outcome, Appended), outcome
    return outcome.sequence


async def all_of(log: Log, *drafts: Draft) -> list[Appended | Conflict]:
    """Append everything at once."""
    return await asyncio.gather(*(log.append(draft) for draft in drafts))


async def tail(log: Log, after: int, up_to: int, within_s: float = 20) -> list[Fact | BadFact]:
    """Follow above ``after`` until sequence ``up_to`` has come."""
    facts: list[Fact | BadFact] = []
    async with asyncio.timeout(within_s), aclosing(log.follow(after)) as batches:  # type: ignore[type-var]
        async for batch in batches:
            assert batch
            facts.extend(batch)
            if facts[-1].sequence >= up_to:
                break
    return facts
