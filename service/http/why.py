"""Why a plan or a task does not run, and who works here."""

import msgspec
from litestar import Controller

from service.core.core import Core
from service.core.why.asked import why
from service.core.why.reasons import Why
from service.core.workers import WorkerView
from service.http.guards import requires
from service.http.openapi import BEARER
from service.http.parameters import Limit, MinSequence, PlanId, TaskId
from service.http.problems import RequestRefused
from service.http.request import ApiRequest
from service.http.responses import READ_TROUBLE, refusals
from service.http.routes import get


class WorkerList(msgspec.Struct, frozen=True, kw_only=True):
    """The owners that ``instance`` has seen in the last hour; ``total`` counts those not shown."""

    instance: str
    total: int
    workers: list[WorkerView]


class WhyController(Controller):
    """`/v1/plans/{plan_id}/why`, `…/tasks/{task_id}/why` and `/v1/workers`."""

    path = "/v1"
    tags = ("why",)
    security = BEARER

    @get(
        "/plans/{plan_id:str}/why",
        guards=[requires("read")],
        responses=refusals("not_found", "log_unavailable", *READ_TROUBLE),
    )
    async def why_plan(
        self, plan_id: PlanId, request: ApiRequest, min_sequence: MinSequence = None
    ) -> Why:
        """Why the plan does not move on, or how it ended."""
        core = request.core
        await _seen(core, min_sequence)
        answer = await why(core, plan_id)
        if answer is None:
            raise RequestRefused("not_found", f"there is no plan '{plan_id}'")
        return answer

    @get(
        "/plans/{plan_id:str}/tasks/{task_id:str}/why",
        guards=[requires("read")],
        responses=refusals("not_found", "log_unavailable", *READ_TROUBLE),
    )
    async def why_task(
        self,
        plan_id: PlanId,
        task_id: TaskId,
        request: ApiRequest,
        min_sequence: MinSequence = None,
    ) -> Why:
        """Why the task does not run, who runs it, or how it ended."""
        core = request.core
        await _seen(core, min_sequence)
        answer = await why(core, plan_id, task_id)
        if answer is None:
            raise RequestRefused("not_found", f"plan '{plan_id}' has no task '{task_id}'")
        return answer

    @get("/workers", guards=[requires("read")], responses=refusals())
    async def list_workers(self, request: ApiRequest, limit: Limit = 50) -> WorkerList:
        """Owners seen in the last hour: leases, last sign of life, claims asked for here."""
        core = request.core
        views, total = core.workers.shown(core.board, core.now(), limit)
        return WorkerList(instance=core.instance_id, total=total, workers=views)


async def _seen(core: Core, min_sequence: int | None) -> None:
    """Wait for ``min_sequence`` if it is given; the board needs no read models. Raises Behind."""
    if min_sequence is not None:
        await core.visible(min_sequence)
