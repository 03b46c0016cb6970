"""Attempts: what the owner of a lease reports about its attempt at one task.

Each report is fenced by owner and attempt; one that no longer counts is answered with who holds
the task now, never with silence.
"""

from typing import Any, Literal

import msgspec
from litestar import Controller
from litestar.params import JSONBody

from projections.read_models.views import Moment, TaskView
from service.core.answers import OwnerAnswer
from service.http import owner_commands
from service.http.guards import requires
from service.http.openapi import BEARER
from service.http.parameters import PlanId, TaskId
from service.http.problems import accepted
from service.http.request import ApiRequest
from service.http.responses import OWNER_REFUSALS, refusals
from service.http.routes import post
from service.http.schemas import (
    CheckpointBody,
    CompleteBody,
    FailBody,
    HeartbeatBody,
    OwnerBody,
    ProgressBody,
    ReleaseBody,
)
from streams.plan import commands


class Accepted(msgspec.Struct, frozen=True):
    """An owner's report was accepted, now or before (`duplicate`)."""

    status: Literal["accepted", "duplicate"]
    sequence: int
    task: TaskView


class Renewed(msgspec.Struct, frozen=True):
    """The lease holds until ``lease_until``; stop if ``cancel_requested``."""

    status: Literal["accepted", "duplicate"]
    sequence: int
    task: TaskView
    lease_until: Moment | None
    cancel_requested: bool


_owner: Any = {
    "status_code": 200,
    "guards": [requires("work")],
    "responses": refusals(*OWNER_REFUSALS),
}


class AttemptController(Controller):
    """`/v1/plans/{plan_id}/tasks/{task_id}/…`, for the owner of a lease."""

    path = "/v1/plans/{plan_id:str}/tasks/{task_id:str}"
    tags = ("attempts",)
    security = BEARER

    @post("/start", **_owner)
    async def start_task(
        self,
        plan_id: PlanId,
        task_id: TaskId,
        data: JSONBody[OwnerBody],
        request: ApiRequest,
    ) -> Accepted:
        """Report that the work begins."""
        command = commands.Start(**_held(plan_id, task_id, data))
        return _accepted(await _own(command, request))

    @post("/heartbeat", **_owner)
    async def renew_lease(
        self,
        plan_id: PlanId,
        task_id: TaskId,
        data: JSONBody[HeartbeatBody],
        request: ApiRequest,
    ) -> Renewed:
        """Renew the lease."""
        command = owner_commands.heartbeat(_held(plan_id, task_id, data), data.progress)
        return _renewed(await _own(command, request))

    @post("/progress", **_owner)
    async def show_progress(
        self,
        plan_id: PlanId,
        task_id: TaskId,
        data: JSONBody[ProgressBody],
        request: ApiRequest,
    ) -> Accepted:
        """Show partial work to those who follow the events."""
        command = commands.Progress(**_held(plan_id, task_id, data), data=data.data)
        return _accepted(await _own(command, request))

    @post("/checkpoint", **_owner)
    async def keep_checkpoint(
        self,
        plan_id: PlanId,
        task_id: TaskId,
        data: JSONBody[CheckpointBody],
        request: ApiRequest,
    ) -> Renewed:
        """Keep a value for later attempts at this task, and renew the lease."""
        command = owner_commands.checkpoint(_held(plan_id, task_id, data), data)
        return _renewed(await _own(command, request))

    @post("/complete", **_owner)
    async def complete_task(
        self,
        plan_id: PlanId,
        task_id: TaskId,
        data: JSONBody[CompleteBody],
        request: ApiRequest,
    ) -> Accepted:
        """Report success."""
        command = owner_commands.complete(_held(plan_id, task_id, data), data)
        return _accepted(await _own(command, request))

    @post("/fail", **_owner)
    async def fail_task(
        self,
        plan_id: PlanId,
        task_id: TaskId,
        data: JSONBody[FailBody],
        request: ApiRequest,
    ) -> Accepted:
        """Report failure."""
        most = request.core.settings.executor.execution.timeout_retry_max
        command = owner_commands.fail(_held(plan_id, task_id, data), data, most)
        return _accepted(await _own(command, request))

    @post("/release", **_owner)
    async def release_task(
        self,
        plan_id: PlanId,
        task_id: TaskId,
        data: JSONBody[ReleaseBody],
        request: ApiRequest,
    ) -> Accepted:
        """Give the lease back unspent."""
        command = owner_commands.release(_held(plan_id, task_id, data), data)
        return _accepted(await _own(command, request))


def _held(
    plan_id: str, task_id: str, said: OwnerBody | CompleteBody | FailBody | ReleaseBody
) -> commands.HeldAttempt:
    return {"plan_id": plan_id, "task_id": task_id, "owner": said.owner, "attempt": said.attempt}


async def _own(command: commands.OwnerCommand, request: ApiRequest) -> OwnerAnswer:
    return accepted(await request.core.own(command, request.origin(command.owner)))


def _renewed(answer: OwnerAnswer) -> Renewed:
    return Renewed(
        answer.status, answer.sequence, answer.task, answer.lease_until, answer.cancel_requested
    )


def _accepted(answer: OwnerAnswer) -> Accepted:
    return Accepted(answer.status, answer.sequence, answer.task)
