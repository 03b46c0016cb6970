"""What can be read: plans, tasks, executions and the audit trail, from the read models.

A read first waits until it sees what was written before it (`Core.visible`).
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import asdict

from projections.read_models import audit, executions, plans, tasks
from projections.read_models.audit import AuditView
from projections.read_models.pagination import Page
from projections.read_models.tasks import TaskDetail
from projections.read_models.views import ExecutionView, PlanView, TaskView
from service.http.problems import Refusal
from service.http.reply import Reply, show, show_with
from service.http.routes import READ_TROUBLE, Call, route
from service.http.schemas import AuditQuery, ExecutionsQuery, PlansQuery, Query, TasksQuery

T = TypeVar("T")


class PlanDetail(PlanView, kw_only=True):
    """A plan with its tasks."""

    tasks: list[TaskView]


def _filters(query: Struct) -> dict[str, object]:
    """The query's fields as a page function takes them."""
    given = asdict(query)
    del given["min_sequence"]
    return given


async def _certain(call: Call[Query], find: Callable[[], Awaitable[T | None]]) -> T | None:
    """What ``find`` finds; nothing only if another instance has not just written it either."""
    found = await find()
    if found is None:
        await call.core.newest()
        found = await find()
    return found


@route("GET /v1/plans", asks=PlansQuery, shows=Page[PlanView], refuses=READ_TROUBLE)
async def list_plans(call: Call[PlansQuery]) -> Reply:
    """Plans, the newest first."""
    await call.core.visible(call.asked.min_sequence)
    return show(await plans.page(call.core.database, **_filters(call.asked)))  # pyright: ignore[reportArgumentType]


@route(
    "GET /v1/plans/{plan_id}",
    asks=Query,
    shows=PlanDetail,
    refuses=("not_found", "log_unavailable", *READ_TROUBLE),
)
async def get_plan(call: Call[Query]) -> Reply:
    """One plan with its tasks, in the order submitted."""
    await call.core.visible(call.asked.min_sequence)
    found = await _certain(call, lambda: tasks.plan_detail(call.core.database, call.plan_id))
    if found is None:
        raise Refusal("not_found", f"there is no plan '{call.plan_id}'")
    plan, its_tasks = found
    return await show_with(plan, "tasks", its_tasks)


@route(
    "GET /v1/plans/{plan_id}/tasks/{task_id}",
    asks=Query,
    shows=TaskDetail,
    refuses=("not_found", "log_unavailable", *READ_TROUBLE),
)
async def get_task(call: Call[Query]) -> Reply:
    """One task with its last 20 executions, the first of them first."""
    await call.core.visible(call.asked.min_sequence)
    task = await _certain(
        call, lambda: tasks.task_detail(call.core.database, call.plan_id, call.task_id)
    )
    if task is None:
        raise Refusal("not_found", f"plan '{call.plan_id}' has no task '{call.task_id}'")
    return show(task)


@route("GET /v1/tasks", asks=TasksQuery, shows=Page[TaskView], refuses=READ_TROUBLE)
async def list_tasks(call: Call[TasksQuery]) -> Reply:
    """Tasks, the newest plan's first."""
    await call.core.visible(call.asked.min_sequence)
    return show(await tasks.page(call.core.database, **_filters(call.asked)))  # pyright: ignore[reportArgumentType]


@route("GET /v1/executions", asks=ExecutionsQuery, shows=Page[ExecutionView], refuses=READ_TROUBLE)
async def list_executions(call: Call[ExecutionsQuery]) -> Reply:
    """Attempts, the newest claim first."""
    await call.core.visible(call.asked.min_sequence)
    return show(await executions.page(call.core.database, **_filters(call.asked)))  # pyright: ignore[reportArgumentType]


@route("GET /v1/audit", asks=AuditQuery, shows=Page[AuditView], refuses=READ_TROUBLE)
async def list_audit(call: Call[AuditQuery]) -> Reply:
    """Audit entries, the newest first."""
    await call.core.visible(call.asked.min_sequence)
    return show(await audit.page(call.core.database, **_filters(call.asked)))  # pyright: ignore[reportArgumentType]


ROUTES = (list_plans, get_plan, get_task, list_tasks, list_executions, list_audit)
