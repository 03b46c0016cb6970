"""Claims: a worker takes leases, and waits for them while there is nothing to claim."""

import msgspec
from litestar import Controller
from litestar.params import JSONBody

from service.core.answers import Claim, ClaimRequest
from service.http.guards import requires
from service.http.instance_parts import parts_of
from service.http.openapi import BEARER
from service.http.parameters import PlanId, TaskId
from service.http.problems import accepted
from service.http.quotas import client_of
from service.http.request import ApiRequest, ClientGone
from service.http.responses import LOG_TROUBLE, refusals
from service.http.routes import post
from service.http.schemas import ClaimBody, ClaimOneBody


class Claims(msgspec.Struct, frozen=True):
    """The leases granted; empty when nothing was claimable in time."""

    claims: list[Claim]


class ClaimController(Controller):
    """`/v1/claims`."""

    path = "/v1/claims"
    tags = ("claims",)
    security = BEARER

    @post(
        status_code=200,
        guards=[requires("work")],
        response_description="The leases granted; none if nothing was claimable in time",
        responses=refusals("log_unavailable", "log_full", "too_large"),
    )
    async def claim_tasks(self, data: JSONBody[ClaimBody], request: ApiRequest) -> Claims:
        """Take leases, waiting up to `wait_s` while there is nothing."""
        core = request.core
        wanted = ClaimRequest(
            owner=data.owner,
            limit=data.limit,
            kinds=data.kinds,
            lease_s=data.lease_s,
            wait_s=data.wait_s,
            start=data.start,
            bounded=True,
            gone=request.is_gone,
        )
        origin = request.origin(data.owner)
        if data.wait_s:
            request.deadline.allow(data.wait_s)
            quotas, client = parts_of(request.scope).quotas, client_of(request.scope)
            with quotas.one_of("waiting claims", client), request.ended_with_client():
                claims = await core.claim(wanted, origin)
        else:
            claims = await core.claim(wanted, origin)
        if claims and request.is_gone():
            await core.abandon(claims, data.owner, origin)
            raise ClientGone
        return Claims(claims)


class ChosenTaskController(Controller):
    """`/v1/plans/{plan_id}/tasks/{task_id}/claim`."""

    path = "/v1/plans/{plan_id:str}/tasks/{task_id:str}/claim"
    tags = ("claims",)
    security = BEARER

    @post(
        status_code=200,
        guards=[requires("work")],
        response_description="The lease",
        responses=refusals("not_found", "not_allowed", *LOG_TROUBLE),
    )
    async def claim_chosen_task(
        self,
        plan_id: PlanId,
        task_id: TaskId,
        data: JSONBody[ClaimOneBody],
        request: ApiRequest,
    ) -> Claim:
        """Take the lease of one chosen task."""
        core = request.core
        wanted = ClaimRequest(
            owner=data.owner, lease_s=data.lease_s, start=data.start, bounded=True
        )
        origin = request.origin(data.owner)
        claim = accepted(await core.claim_chosen(plan_id, task_id, wanted, origin))
        if request.is_gone():
            await core.abandon([claim], data.owner, origin)
            raise ClientGone
        return claim
