"""Tasks: reading them, and giving a FAILED one fresh budgets."""

from litestar import Controller
from litestar.params import JSONBody

from projections.read_models import task_views
from projections.read_models.pagination import Page
from projections.read_models.task_views import TaskChanges, TaskDetail
from projections.read_models.views import TaskView
from service.http import owner_commands
from service.http.attempts import Accepted
from service.http.guards import requires
from service.http.openapi import BEARER, OptionalBody
from service.http.parameters import (
    ChangedAfter,
    Cursor,
    IdFilter,
    KindFilter,
    Limit,
    MinSequence,
    OwnerFilter,
    PlanId,
    TaskId,
    TaskStatusFilter,
)
from service.http.problems import RequestRefused, accepted
from service.http.reads import certain
from service.http.request import ApiRequest
from service.http.responses import LOG_TROUBLE, READ_TROUBLE, refusals
from service.http.routes import get, post
from service.http.schemas import GivenBack, RetryBody, TakeBackBody
from streams.plan.commands import HeldAttempt, Retry

NO_REASON = RetryBody()


class TaskController(Controller):
    """`/v1/tasks`, and one task of a plan."""

    path = "/v1"
    tags = ("tasks",)
    security = BEARER

    @get("/tasks", guards=[requires("read")], responses=refusals(*READ_TROUBLE))
    async def list_tasks(
        self,
        request: ApiRequest,
        status: TaskStatusFilter = None,
        kind: KindFilter = None,
        owner: OwnerFilter = None,
        plan_id: IdFilter = None,
        min_sequence: MinSequence = None,
        after: Cursor = None,
        limit: Limit = 50,
    ) -> Page[TaskView]:
        """Tasks, the newest plan's first."""
        core = request.core
        await core.visible(min_sequence)
        return await task_views.page(
            core.database,
            status=status,
            kind=kind,
            owner=owner,
            plan_id=plan_id,
            after=after,
            limit=limit,
        )

    @get(
        "/plans/{plan_id:str}/tasks",
        guards=[requires("read")],
        responses=refusals("not_found", "log_unavailable", *READ_TROUBLE),
    )
    async def list_changed_tasks(
        self,
        plan_id: PlanId,
        request: ApiRequest,
        changed_after: ChangedAfter = 0,
        min_sequence: MinSequence = None,
        after: Cursor = None,
        limit: Limit = 50,
    ) -> TaskChanges:
        """The plan's tasks that changed after a sequence, derived statuses included."""
        core = request.core
        await core.visible(min_sequence)
        if task_views.named_by(changed_after, after) > core.projector.flushed_sequence:
            await core.newest()  # an instance that is behind another must not answer from its past
        found = await certain(
            core,
            lambda: task_views.changes(
                core.database, plan_id, changed_after=changed_after, after=after, limit=limit
            ),
        )
        if found is None:
            raise RequestRefused("not_found", f"there is no plan '{plan_id}'")
        return found

    @get(
        "/plans/{plan_id:str}/tasks/{task_id:str}",
        guards=[requires("read")],
        responses=refusals("not_found", "log_unavailable", *READ_TROUBLE),
    )
    async def get_task(
        self,
        plan_id: PlanId,
        task_id: TaskId,
        request: ApiRequest,
        min_sequence: MinSequence = None,
    ) -> TaskDetail:
        """One task with its last 20 executions, the first of them first."""
        core = request.core
        await core.visible(min_sequence)
        task = await certain(core, lambda: task_views.task_detail(core.database, plan_id, task_id))
        if task is None:
            raise RequestRefused("not_found", f"plan '{plan_id}' has no task '{task_id}'")
        return task

    @post(
        "/plans/{plan_id:str}/tasks/{task_id:str}/retry",
        status_code=200,
        guards=[requires("operate")],
        responses=refusals("not_found", "not_allowed", *LOG_TROUBLE),
        operation_class=OptionalBody,
    )
    async def retry_task(
        self,
        plan_id: PlanId,
        task_id: TaskId,
        request: ApiRequest,
        data: JSONBody[RetryBody] = NO_REASON,
    ) -> TaskView:
        """Give a FAILED task fresh budgets; its checkpoints stay unless it is to begin `fresh`."""
        command = Retry(plan_id=plan_id, task_id=task_id, reason=data.reason, fresh=data.fresh)
        return accepted(await request.core.retry(command, request.origin()))

    @post(
        "/plans/{plan_id:str}/tasks/{task_id:str}/take-back",
        status_code=200,
        guards=[requires("operate")],
        responses=refusals("not_found", "not_allowed", "guard_reject", *LOG_TROUBLE),
    )
    async def take_back(
        self,
        plan_id: PlanId,
        task_id: TaskId,
        data: JSONBody[TakeBackBody],
        request: ApiRequest,
    ) -> Accepted:
        """End a RUNNING task's lease in its owner's place; no retry is spent."""
        core = request.core
        plan = core.board.knows(plan_id)
        task = plan.tasks.get(task_id) if plan is not None else None
        if task is None:
            raise RequestRefused("not_found", f"no unfinished plan '{plan_id}' has a '{task_id}'")
        if task.status != "RUNNING" or task.owner is None or task.attempt != data.attempt:
            now = f"is {task.status}, attempt {task.attempt}"
            raise RequestRefused("not_allowed", f"no lease of attempt {data.attempt}: it {now}")
        held = HeldAttempt(plan_id=plan_id, task_id=task_id, owner=task.owner, attempt=data.attempt)
        command = owner_commands.release(held, GivenBack(reason=data.reason))
        answer = accepted(await core.own(command, request.origin()))
        return Accepted(answer.status, answer.sequence, answer.task)
