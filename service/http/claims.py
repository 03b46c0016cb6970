"""Claims: a worker takes leases, and waits for them while there is nothing to claim."""

import asyncio
from contextlib import suppress

import msgspec
from litestar import Controller
from litestar.params import JSONBody
from litestar.types import Receive

from service.core.core import Core
from service.core.results import Claim, ClaimRequest
from service.http.dependencies import ProvidedCore
from service.http.guards import requires
from service.http.openapi import BEARER
from service.http.parameters import PlanId, TaskId
from service.http.problems import RequestRefused, accepted
from service.http.quotas import Quotas, client_of
from service.http.request import ApiRequest, ClientGone
from service.http.responses import LOG_TROUBLE, refusals
from service.http.routes import post
from service.http.schemas import ClaimBody, ClaimOneBody
from streams.log import Origin

AT_ONCE_S = 0.05  # a claim that is answered so soon is not worth a task that watches its client


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
    async def claim_tasks(
        self, data: JSONBody[ClaimBody], core: ProvidedCore, request: ApiRequest
    ) -> Claims:
        """Take leases, waiting up to `wait_s` while there is nothing."""
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
        origin = request.origin(core, data.owner)
        if not data.wait_s:
            claims = await core.claim(wanted, origin)
            if claims and request.is_gone():
                await core.abandon(claims, data.owner, origin)
                raise ClientGone
        else:
            request.deadline.allow(data.wait_s)
            quotas: Quotas = request.app.state.quotas
            with quotas.one_of("waiting claims", client_of(request.scope)):
                claims = await _claim_while_connected(core, wanted, origin, request)
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
        core: ProvidedCore,
        request: ApiRequest,
    ) -> Claim:
        """Take the lease of one chosen task."""
        wanted = ClaimRequest(
            owner=data.owner, lease_s=data.lease_s, start=data.start, bounded=True
        )
        origin = request.origin(core, data.owner)
        claim = accepted(await core.claim_chosen(plan_id, task_id, wanted, origin))
        if request.is_gone():
            await core.abandon([claim], data.owner, origin)
            raise ClientGone
        return claim


async def _claim_while_connected(
    core: Core, wanted: ClaimRequest, origin: Origin, request: ApiRequest
) -> list[Claim]:
    """Claim until the client closes the connection or its token ends; then nothing stays claimed.

    Raises ClientGone, and RequestRefused for a token that has ended.
    """
    claiming = asyncio.create_task(core.claim(wanted, origin))
    leaving: asyncio.Task[None] | None = None
    forget = request.when_ended(claiming.cancel)
    try:
        await asyncio.wait({claiming}, timeout=AT_ONCE_S)
        if not claiming.done():
            leaving = asyncio.create_task(_hung_up(request.receive))
            await asyncio.wait({claiming, leaving}, return_when=asyncio.FIRST_COMPLETED)
            # Both may have come in one turn of the loop: who left must be heard before being
            # cancelled.
            await asyncio.sleep(0)
    except asyncio.CancelledError:  # its time is over, or the instance stops
        if not claiming.done():
            raise
    finally:
        forget()
        if leaving is not None:
            leaving.cancel()
        if not claiming.done():
            claiming.cancel()
    has_left = leaving is not None and leaving.done() and not leaving.cancelled()
    with suppress(asyncio.CancelledError):
        claims = await claiming
        if request.is_gone() or has_left:
            await core.abandon(claims, wanted.owner, origin)
            raise ClientGone
        return claims
    if has_left:
        raise ClientGone
    raise RequestRefused("unauthorized", "the token or session has ended while the claim waited")


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
