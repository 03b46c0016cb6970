"""Audit entries: what happened around the log."""

from litestar import Controller

from projections.read_models import audit
from projections.read_models.audit import AuditView
from projections.read_models.pagination import Page
from service.http.guards import requires
from service.http.openapi import BEARER
from service.http.parameters import (
    AuditEventFilter,
    Cursor,
    IdFilter,
    Limit,
    MinSequence,
    OwnerFilter,
)
from service.http.request import ApiRequest
from service.http.responses import READ_TROUBLE, refusals
from service.http.routes import get


class AuditController(Controller):
    """`/v1/audit`."""

    path = "/v1/audit"
    tags = ("audit",)
    security = BEARER

    @get(guards=[requires("read")], responses=refusals(*READ_TROUBLE))
    async def list_audit(
        self,
        request: ApiRequest,
        event: AuditEventFilter = None,
        plan_id: IdFilter = None,
        task_id: IdFilter = None,
        owner: OwnerFilter = None,
        min_sequence: MinSequence = None,
        after: Cursor = None,
        limit: Limit = 50,
    ) -> Page[AuditView]:
        """Audit entries, the newest first."""
        core = request.core
        await core.visible(min_sequence)
        return await audit.page(
            core.database,
            event=event,
            plan_id=plan_id,
            task_id=task_id,
            owner=owner,
            after=after,
            limit=limit,
        )
