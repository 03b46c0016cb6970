"""Heartbeats and results of many attempts of one owner in one request."""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from litestar import Controller
from litestar.params import JSONBody

from projections.read_models.views import Moment
from service.core.answers import AcceptedWrite, Refused
from service.core.core import Core
from service.http import owner_commands
from service.http.guards import requires
from service.http.openapi import BEARER
from service.http.problems import explained
from service.http.request import ApiRequest
from service.http.responses import LOG_TROUBLE, refusals
from service.http.routes import post
from service.http.schemas import (
    CheckpointedItem,
    CompletedItem,
    FailedItem,
    HeartbeatsBody,
    LeaseItem,
    ReleasedItem,
    ResultItem,
    ResultsBody,
)
from streams.log import Origin, TooLarge
from streams.plan.commands import Checkpoint, Heartbeat, HeldAttempt, OwnerCommand
from streams.plan.decisions import Current, GuardReject
from streams.plan.limits import AttemptNumber

BatchStatus = Literal[
    "accepted",
    "duplicate",
    "guard_reject",
    "not_found",
    "not_allowed",
    "invalid_request",
    "too_large",
    "contended",
]


class BatchItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What became of one report of many; further fields as far as they apply."""

    plan_id: str
    task_id: str
    attempt: AttemptNumber
    status: BatchStatus
    sequence: int | None = None
    lease_until: Moment | None = None
    cancel_requested: bool | None = None
    current: Current | None = None
    detail: str | None = None


class BatchAnswer(msgspec.Struct, frozen=True):
    """One entry for each report, in the order asked."""

    results: list[BatchItem]


RENEWALS = (Heartbeat, Checkpoint)

_batch: Any = {
    "status_code": 200,
    "guards": [requires("work")],
    "responses": refusals(*LOG_TROUBLE),
}


class BatchController(Controller):
    """`/v1/heartbeats` and `/v1/results`."""

    path = "/v1"
    tags = ("batches",)
    security = BEARER

    @post("/heartbeats", **_batch)
    async def renew_leases(
        self, data: JSONBody[HeartbeatsBody], request: ApiRequest
    ) -> BatchAnswer:
        """Renew many leases of one owner."""
        reports = [
            owner_commands.heartbeat(_held(data.owner, lease), lease.progress)
            for lease in data.leases
        ]
        return await _own_many(request.core, reports, request.origin(data.owner))

    @post("/results", **_batch)
    async def report_results(self, data: JSONBody[ResultsBody], request: ApiRequest) -> BatchAnswer:
        """Report how many attempts of one owner ended, and what those that go on keep."""
        core = request.core
        most = core.settings.executor.execution.timeout_retry_max
        reports = [_result(data.owner, item, most) for item in data.results]
        return await _own_many(core, reports, request.origin(data.owner))


def _held(owner: str, item: LeaseItem | ResultItem) -> HeldAttempt:
    return {
        "plan_id": item.plan_id,
        "task_id": item.task_id,
        "owner": owner,
        "attempt": item.attempt,
    }


def _result(owner: str, item: ResultItem, timeout_retry_max: int) -> OwnerCommand:
    held = _held(owner, item)
    match item:
        case CompletedItem():
            return owner_commands.complete(held, item)
        case FailedItem():
            return owner_commands.fail(held, item, timeout_retry_max)
        case ReleasedItem():
            return owner_commands.release(held, item)
        case CheckpointedItem():
            return owner_commands.checkpoint(held, item)


async def _own_many(core: Core, reports: Sequence[OwnerCommand], origin: Origin) -> BatchAnswer:
    answers = await core.own_many(reports, origin)
    items = [_item(report, answer) for report, answer in zip(reports, answers, strict=True)]
    return BatchAnswer(items)


def _item(report: OwnerCommand, answer: AcceptedWrite | Refused | TooLarge) -> BatchItem:
    plan_id, task_id, attempt = report.plan_id, report.task_id, report.attempt
    if isinstance(answer, AcceptedWrite):
        renewed = isinstance(report, RENEWALS)
        return BatchItem(
            plan_id=plan_id,
            task_id=task_id,
            attempt=attempt,
            status=answer.status,
            sequence=answer.sequence,
            lease_until=answer.lease_until if renewed else None,
            cancel_requested=answer.cancel_requested if renewed else None,
        )
    problem = explained(answer).problem
    return BatchItem(
        plan_id=plan_id,
        task_id=task_id,
        attempt=attempt,
        status=msgspec.convert(problem.code, BatchStatus),
        current=answer.current if isinstance(answer, GuardReject) else None,
        detail=problem.detail,
    )
