"""Executions: one for each attempt at a task."""

from litestar import Controller

from projections.read_models import executions
from projections.read_models.pagination import Page
from projections.read_models.views import ExecutionView
from service.http.guards import requires
from service.http.openapi import BEARER
from service.http.parameters import (
    Cursor,
    ErrorTypeFilter,
    ExecutionStatusFilter,
    IdFilter,
    Limit,
    MinSequence,
    ModelNameFilter,
)
from service.http.request import ApiRequest
from service.http.responses import READ_TROUBLE, refusals
from service.http.routes import get


class ExecutionController(Controller):
    """`/v1/executions`."""

    path = "/v1/executions"
    tags = ("executions",)
    security = BEARER

    @get(guards=[requires("read")], responses=refusals(*READ_TROUBLE))
    async def list_executions(  # noqa: PLR0913, PLR0917 - it has as many parameters
        self,
        request: ApiRequest,
        plan_id: IdFilter = None,
        task_id: IdFilter = None,
        status: ExecutionStatusFilter = None,
        error_type: ErrorTypeFilter = None,
        model_name: ModelNameFilter = None,
        min_sequence: MinSequence = None,
        after: Cursor = None,
        limit: Limit = 50,
    ) -> Page[ExecutionView]:
        """Attempts, the newest claim first."""
        core = request.core
        await core.visible(min_sequence)
        return await executions.page(
            core.database,
            plan_id=plan_id,
            task_id=task_id,
            status=status,
            error_type=error_type,
            model_name=model_name,
            after=after,
            limit=limit,
        )
