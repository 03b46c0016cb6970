"""A plan as it was at a sequence of the log: folded from its facts up to there, on any instance.

Heartbeats and progress leave the log after a while; of an old moment the end of a lease may then be
earlier than it was. Nothing else depends on them.
"""

import asyncio
from collections.abc import Iterator

from projections.read_models.task_views import MAX_DETAIL_BYTES, MAX_LISTED_BYTES
from projections.read_models.views import PlanView, TaskView, plan_view, task_view
from service.core.answers import BeyondHead
from streams.log import BadFact, Fact, Log
from streams.plan.events import NOTHING
from streams.plan.fold import fold_next
from streams.plan.state import Plan

PAGE_FACTS = 500


async def plan_at(log: Log, plan_id: str, sequence: int) -> Plan | None:
    """The plan folded up to ``sequence``; None when it was not there yet. Raises LogUnavailable.

    Outputs that a detail would leave out are not kept, so memory holds one page of facts and what
    is shown.
    """
    plan: Plan | None = None
    kept_bytes, after = 0, 0
    while facts := await log.scan(after, PAGE_FACTS, plan_id):
        wanted = [fact for fact in facts if fact.sequence <= sequence]
        plan = await asyncio.to_thread(_folded, plan, wanted)
        if plan is None or len(wanted) < len(facts):
            break
        kept_bytes = _drop_large(plan, kept_bytes)
        after = facts[-1].sequence
    return plan


def _folded(plan: Plan | None, facts: list[Fact | BadFact]) -> Plan | None:
    for fact in facts:
        plan = fold_next(plan, fact)
    return plan


def _drop_large(plan: Plan, kept_bytes: int) -> int:
    """Drop outputs that will not be shown; answers how many bytes of outputs are kept."""
    drained = plan.drain()
    for task in (drained.touched | drained.renewed).values():
        for checkpoint in (task.checkpoints or {}).values():
            checkpoint.held = None  # a detail does not show it
        if task.held is None:
            continue
        kept_bytes += task.output_bytes
        if task.output_bytes > MAX_LISTED_BYTES or kept_bytes > MAX_DETAIL_BYTES:
            kept_bytes -= task.output_bytes
            task.held = None
    return kept_bytes


async def detail_at(
    log: Log, plan_id: str, sequence: int, folded: int
) -> tuple[PlanView, list[TaskView]] | None:
    """`projections.read_models.task_views.plan_detail` as of ``sequence``.

    The log reaches at least to ``folded``; beyond that its leader is asked for its head. Raises
    LogUnavailable, BeyondHead.
    """
    if sequence > folded and sequence > (head := (await log.state()).head):
        raise BeyondHead(sequence, head)
    plan = await plan_at(log, plan_id, sequence)
    return None if plan is None else await asyncio.to_thread(_detail, plan)


def _detail(plan: Plan) -> tuple[PlanView, list[TaskView]]:
    return plan_view(plan), list(_views(plan))


def _views(plan: Plan) -> Iterator[TaskView]:
    spent = 0
    for task in plan.tasks.values():
        view = task_view(plan.plan_id, plan.created_at, task, plan.traceparent)
        left_out = {
            name
            for name in ("input", "output", "feedback")
            if len(getattr(view, name)) > MAX_LISTED_BYTES
        }
        if task.status == "COMPLETED" and task.digest is not None and task.held is None:
            left_out.add("output")
        spent += sum(len(each) for each in (view.input, view.output, view.feedback))
        if spent > MAX_DETAIL_BYTES:
            left_out |= {"input", "output", "feedback"}
        for name in left_out:
            setattr(view, name, NOTHING)
        view.truncated = tuple(sorted(left_out))
        yield view
