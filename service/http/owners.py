"""Owners: one that ends says goodbye, and what it holds is free at once."""

import msgspec
from litestar import Controller
from litestar.params import JSONBody

from service.core.answers import ReleasedLease
from service.core.lease_taking import GOODBYE
from service.http.guards import requires
from service.http.openapi import BEARER, OptionalBody
from service.http.parameters import OwnerInPath
from service.http.request import ApiRequest
from service.http.responses import refusals
from service.http.routes import post
from service.http.schemas import ReasonBody

NO_REASON = ReasonBody()


class Goodbye(msgspec.Struct, frozen=True):
    """The leases that were released."""

    released: list[ReleasedLease]


class OwnerController(Controller):
    """`/v1/owners`."""

    path = "/v1/owners"
    tags = ("claims",)
    security = BEARER

    @post(
        "/{owner:str}/goodbye",
        status_code=200,
        guards=[requires("work")],
        response_description="The leases that were released",
        responses=refusals("not_found", "log_unavailable", "log_full"),
        operation_class=OptionalBody,
    )
    async def say_goodbye(
        self,
        owner: OwnerInPath,
        request: ApiRequest,
        data: JSONBody[ReasonBody] = NO_REASON,
    ) -> Goodbye:
        """Release every lease that an owner holds; its waiting claims end empty."""
        reason = data.reason or GOODBYE
        return Goodbye(await request.core.goodbye(owner, reason, request.origin(owner)))
