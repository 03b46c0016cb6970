"""Plans: submitting and reading them, and what operators do with them."""

import asyncio
from typing import Any

from litestar import Controller, Response
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody
from msgspec.structs import asdict

from projections.read_models import plans, task_views
from projections.read_models.pagination import Page
from projections.read_models.views import PlanView, TaskView
from service.core import past
from service.core.answers import Submission
from service.http.guards import requires
from service.http.openapi import BEARER, OptionalBody
from service.http.parameters import (
    AtSequence,
    Cursor,
    ErrorTypeFilter,
    IdempotencyKey,
    KindFilter,
    LabelFilter,
    Limit,
    MinSequence,
    PlanId,
    PlanStatusFilter,
    TextFilter,
    TimeFilter,
)
from service.http.plan_ids import new_plan_id, plan_id_of_key
from service.http.problems import RequestRefused, accepted
from service.http.reads import certain
from service.http.request import ApiRequest
from service.http.responses import LOG_TROUBLE, READ_TROUBLE, ApiResponse, refusals
from service.http.routes import get, post
from service.http.schemas import PlanBody, ReasonBody, RetryBody, TaskBody
from streams.plan.commands import Cancel, Pause, Resume, RetryAll
from streams.plan.events import Submitted, TaskSpec

MANY_TASKS = 500  # are made into specifications in a thread
NO_REASON = ReasonBody()
NO_RETRY_REASON = RetryBody()

_operator: Any = {
    "status_code": 200,
    "guards": [requires("operate")],
    "responses": refusals("not_found", "not_allowed", *LOG_TROUBLE),
    "operation_class": OptionalBody,
}


class PlanDetail(PlanView, kw_only=True):
    """A plan with its tasks."""

    tasks: list[TaskView]


class PlanController(Controller):
    """`/v1/plans`."""

    path = "/v1/plans"
    tags = ("plans",)
    security = BEARER

    @post(
        status_code=201,
        guards=[requires("submit")],
        response_description="The plan is in the log",
        responses=refusals("plan_exists", "too_much_unfinished", *LOG_TROUBLE)
        | {200: ResponseSpec(Submission, description="The same plan was there before")},
    )
    async def submit_plan(
        self,
        data: JSONBody[PlanBody],
        request: ApiRequest,
        idempotency_key: IdempotencyKey = None,
    ) -> Response[Submission]:
        """Submit a plan; submitting the same plan again is not an error."""
        many = len(data.tasks) > MANY_TASKS
        plan = await asyncio.to_thread(_submitted, data) if many else _submitted(data)
        key = idempotency_key
        plan_id = data.id or (new_plan_id() if key is None else plan_id_of_key(key))
        done = accepted(await request.core.submit(plan_id, plan, request.origin(begins=True)))
        return ApiResponse(done, status_code=201 if done.created else 200)

    @get(guards=[requires("read")], responses=refusals(*READ_TROUBLE))
    async def list_plans(  # noqa: PLR0913, PLR0917 - one argument per query parameter
        self,
        request: ApiRequest,
        status: PlanStatusFilter = None,
        label: LabelFilter = None,
        kind: KindFilter = None,
        error_type: ErrorTypeFilter = None,
        text: TextFilter = None,
        submitted_from: TimeFilter = None,
        submitted_to: TimeFilter = None,
        min_sequence: MinSequence = None,
        after: Cursor = None,
        limit: Limit = 50,
    ) -> Page[PlanView]:
        """Plans, the newest first."""
        core = request.core
        await core.visible(min_sequence)
        wanted = plans.PlanFilter(
            status=status,
            label=label,
            kind=kind,
            error_type=error_type,
            text=text,
            submitted_from=submitted_from,
            submitted_to=submitted_to,
        )
        return await plans.page(core.database, wanted, after=after, limit=limit)

    @get(
        "/{plan_id:str}",
        guards=[requires("read")],
        responses=refusals("not_found", "log_unavailable", *READ_TROUBLE),
    )
    async def get_plan(
        self,
        plan_id: PlanId,
        request: ApiRequest,
        min_sequence: MinSequence = None,
        at_sequence: AtSequence = None,
    ) -> PlanDetail:
        """One plan with its tasks, in the order submitted; now, or as of `at_sequence`."""
        core = request.core
        if at_sequence is not None:
            request.deadline.allow_long_read()
            found = await past.detail_at(core.log, plan_id, at_sequence, core.board.sequence)
        else:
            await core.visible(min_sequence)
            found = await certain(core, lambda: task_views.plan_detail(core.database, plan_id))
        if found is None:
            then = "" if at_sequence is None else f" at sequence {at_sequence}"
            raise RequestRefused("not_found", f"there is no plan '{plan_id}'{then}")
        plan, its_tasks = found
        return PlanDetail(**asdict(plan), tasks=its_tasks)

    @post("/{plan_id:str}/pause", **_operator)
    async def pause_plan(
        self,
        plan_id: PlanId,
        request: ApiRequest,
        data: JSONBody[ReasonBody] = NO_REASON,
    ) -> PlanView:
        """Stop claims; running tasks may end."""
        command = Pause(plan_id=plan_id, reason=data.reason)
        return accepted(await request.core.operate(command, request.origin()))

    @post("/{plan_id:str}/resume", **_operator)
    async def resume_plan(
        self,
        plan_id: PlanId,
        request: ApiRequest,
        data: JSONBody[ReasonBody] = NO_REASON,
    ) -> PlanView:
        """Allow claims again."""
        command = Resume(plan_id=plan_id, reason=data.reason)
        return accepted(await request.core.operate(command, request.origin()))

    @post("/{plan_id:str}/cancel", **_operator)
    async def cancel_plan(
        self,
        plan_id: PlanId,
        request: ApiRequest,
        data: JSONBody[ReasonBody] = NO_REASON,
    ) -> PlanView:
        """End every unfinished task of the plan at once."""
        command = Cancel(plan_id=plan_id, reason=data.reason)
        return accepted(await request.core.operate(command, request.origin()))

    @post("/{plan_id:str}/retry", **_operator)
    async def retry_plan(
        self,
        plan_id: PlanId,
        request: ApiRequest,
        data: JSONBody[RetryBody] = NO_RETRY_REASON,
    ) -> PlanView:
        """Give all FAILED tasks of the plan fresh budgets."""
        command = RetryAll(plan_id=plan_id, reason=data.reason, fresh=data.fresh)
        return accepted(await request.core.operate(command, request.origin()))


def _submitted(data: PlanBody) -> Submitted:
    return Submitted(
        name=data.name,
        context=data.context,
        labels=data.labels,
        priority=data.priority,
        tasks=tuple(map(_spec, data.tasks)),
    )


def _spec(task: TaskBody) -> TaskSpec:
    return TaskSpec(**asdict(task))
