"""Appends facts that the log must accept, as no client does: what is tested is what follows."""

from streams.log import NO_ORIGIN, Appended, Draft, Log, Origin
from streams.plan.events import Event


async def append(
    log: Log,
    plan_id: str,
    task_id: str | None,
    expected: int,
    *events: Event,
    origin: Origin = NO_ORIGIN,
) -> int:
    """The sequence of the last fact. Fails where the log refuses them."""
    draft = Draft(plan_id=plan_id, task_id=task_id, expected=expected, events=events, origin=origin)
    outcome = await log.append(draft)
    assert isinstance(outcome, Appended), outcome
    return outcome.sequence
