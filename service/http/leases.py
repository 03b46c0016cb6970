"""The worker's side: claims, and what an owner says about its attempts, one by one or many at once.

Each word is fenced by owner and attempt; a word that no longer counts is answered with who holds
the task now, never with silence.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import msgspec
from litestar.types import Receive
from msgspec import Raw, UnsetType
from msgspec.structs import asdict

from projections.read_models.views import TaskView
from service.core.results import Claim, ClaimRequest, OwnerAnswer, Refused
from service.executor.attempts.failures import closed
from service.http.intake import ClientGone
from service.http.problems import explained
from service.http.reply import Reply, show, tell
from service.http.routes import LOG_TROUBLE, Call, route
from service.http.schemas import (
    Attempt,
    BatchStatus,
    ClaimBody,
    CompleteBody,
    CompletedItem,
    FailBody,
    FailedItem,
    HeartbeatBody,
    HeartbeatsBody,
    OwnerBody,
    ProgressBody,
    ReleaseBody,
    ReleasedItem,
    ResultItem,
    ResultsBody,
    TokenUsageBody,
    VerdictBody,
)
from streams.log import TooLarge
from streams.plan import commands
from streams.plan.decide import Current, GuardReject
from streams.plan.events import NOTHING, TokenUsage, Verdict


class Claims(msgspec.Struct, frozen=True):
    """What a claim is answered with; empty when nothing was claimable in time."""

    claims: list[Claim]


class Accepted(msgspec.Struct, frozen=True):
    """An owner's word was taken, now or before."""

    status: str
    sequence: int
    task: TaskView


class Renewed(msgspec.Struct, frozen=True):
    """The lease holds until ``lease_until``; stop if ``cancel_requested``."""

    status: str
    sequence: int
    task: TaskView
    lease_until: datetime | None
    cancel_requested: bool


class BatchItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one word of many; further fields as far as they apply."""

    plan_id: str
    task_id: str
    attempt: Attempt
    status: BatchStatus
    sequence: int | None = None
    lease_until: datetime | None = None
    cancel_requested: bool | None = None
    current: Current | None = None
    detail: str | None = None


class BatchAnswer(msgspec.Struct, frozen=True):
    """One entry per word, in the order asked."""

    results: list[BatchItem]


# -- claims -----------------------------------------------------------------------------------


@route(
    "POST /v1/claims",
    asks=ClaimBody,
    shows=Claims,
    refuses=("log_unavailable", "log_full"),
    role="worker",
    status={200: "The leases granted; none if nothing was claimable in time"},
)
async def claim_tasks(call: Call[ClaimBody]) -> Reply:
    """Take leases, waiting up to `wait_s` while there is nothing."""
    body = call.asked
    request = ClaimRequest(
        owner=body.owner,
        limit=body.limit,
        kinds=body.kinds,
        lease_s=body.lease_s,
        wait_s=body.wait_s,
    )
    if not body.wait_s:
        return show(Claims(await call.core.claim(request, call.origin(body.owner))))
    return show(Claims(await _claim_while_connected(call, request)))


async def _claim_while_connected(call: Call[ClaimBody], request: ClaimRequest) -> list[Claim]:
    """Claim until the client closes the connection; what it can no longer get is released."""
    origin = call.origin(request.owner)
    claiming = asyncio.create_task(call.core.claim(request, origin))
    leaving = asyncio.create_task(_hung_up(call.receive))
    try:
        await asyncio.wait({claiming, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        if not claiming.done():
            claiming.cancel()
    with suppress(asyncio.CancelledError):
        claims = await claiming
        if leaving.done() and not leaving.cancelled():
            await call.core.abandon(claims, request.owner, origin)
        return claims
    raise ClientGone


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


# -- one word ---------------------------------------------------------------------------------

_OWNER = ("not_found", "guard_reject", "not_allowed", *LOG_TROUBLE)
_TASK = "POST /v1/plans/{plan_id}/tasks/{task_id}"


async def _own(call: Call[Any], command: commands.OwnerCommand) -> Reply:
    answer = await call.core.own(command, call.origin(command.owner))
    if not isinstance(answer, OwnerAnswer):
        return tell(answer)
    if isinstance(command, commands.Heartbeat):
        return show(
            Renewed(
                answer.status,
                answer.sequence,
                answer.task,
                answer.lease_until,
                answer.cancel_requested,
            )
        )
    return show(Accepted(answer.status, answer.sequence, answer.task))


@route(f"{_TASK}/start", asks=OwnerBody, shows=Accepted, refuses=_OWNER, role="worker")
async def start_task(call: Call[OwnerBody]) -> Reply:
    """Say that the work begins."""
    body = call.asked
    command = commands.Start(
        plan_id=call.plan_id, task_id=call.task_id, owner=body.owner, attempt=body.attempt
    )
    return await _own(call, command)


@route(f"{_TASK}/heartbeat", asks=HeartbeatBody, shows=Renewed, refuses=_OWNER, role="worker")
async def renew_lease(call: Call[HeartbeatBody]) -> Reply:
    """Renew the lease."""
    body = call.asked
    command = commands.Heartbeat(
        plan_id=call.plan_id,
        task_id=call.task_id,
        owner=body.owner,
        attempt=body.attempt,
        progress=_given(body.progress),
    )
    return await _own(call, command)


@route(f"{_TASK}/progress", asks=ProgressBody, shows=Accepted, refuses=_OWNER, role="worker")
async def show_progress(call: Call[ProgressBody]) -> Reply:
    """Show partial work to watchers."""
    body = call.asked
    command = commands.Progress(
        plan_id=call.plan_id,
        task_id=call.task_id,
        owner=body.owner,
        attempt=body.attempt,
        data=body.data,
    )
    return await _own(call, command)


@route(f"{_TASK}/complete", asks=CompleteBody, shows=Accepted, refuses=_OWNER, role="worker")
async def complete_task(call: Call[CompleteBody]) -> Reply:
    """Report success."""
    return await _own(call, _complete(call.plan_id, call.task_id, call.asked.owner, call.asked))


@route(f"{_TASK}/fail", asks=FailBody, shows=Accepted, refuses=_OWNER, role="worker")
async def fail_task(call: Call[FailBody]) -> Reply:
    """Report failure."""
    most = call.core.settings.executor.execution.timeout_retry_max
    command = _fail(call.plan_id, call.task_id, call.asked.owner, call.asked, most)
    return await _own(call, command)


@route(f"{_TASK}/release", asks=ReleaseBody, shows=Accepted, refuses=_OWNER, role="worker")
async def release_task(call: Call[ReleaseBody]) -> Reply:
    """Give the lease back unspent."""
    return await _own(call, _release(call.plan_id, call.task_id, call.asked.owner, call.asked))


def _given(progress: Raw | UnsetType) -> Raw | None:
    return progress if isinstance(progress, Raw) and progress != NOTHING else None


def _complete(
    plan_id: str, task_id: str, owner: str, said: CompleteBody | CompletedItem
) -> commands.Complete:
    return commands.Complete(
        plan_id=plan_id,
        task_id=task_id,
        owner=owner,
        attempt=said.attempt,
        output=said.output,
        verdict=_verdict(said.verdict),
        model_name=said.model_name,
        token_usage=_usage(said.token_usage),
    )


def _fail(
    plan_id: str, task_id: str, owner: str, said: FailBody | FailedItem, timeout_retry_max: int
) -> commands.Fail:
    error_type, error_message = closed(said.error_type, said.error_message)
    return commands.Fail(
        plan_id=plan_id,
        task_id=task_id,
        owner=owner,
        attempt=said.attempt,
        error_type=error_type,
        error_message=error_message,
        retryable=said.retryable,
        retry_in_s=said.retry_in_s,
        timeout_retry_max=timeout_retry_max,
        model_name=said.model_name,
        token_usage=_usage(said.token_usage),
    )


def _release(
    plan_id: str, task_id: str, owner: str, said: ReleaseBody | ReleasedItem
) -> commands.Release:
    return commands.Release(
        plan_id=plan_id, task_id=task_id, owner=owner, attempt=said.attempt, reason=said.reason
    )


def _verdict(said: VerdictBody | None) -> Verdict | None:
    return None if said is None else Verdict(pass_=said.pass_, feedback=said.feedback)


def _usage(said: TokenUsageBody | None) -> TokenUsage | None:
    return None if said is None else TokenUsage(**asdict(said))


# -- many words -------------------------------------------------------------------------------


@route(
    "POST /v1/heartbeats",
    asks=HeartbeatsBody,
    shows=BatchAnswer,
    refuses=LOG_TROUBLE,
    role="worker",
)
async def renew_leases(call: Call[HeartbeatsBody]) -> Reply:
    """Renew many leases of one owner."""
    owner = call.asked.owner
    words = [
        commands.Heartbeat(
            plan_id=lease.plan_id,
            task_id=lease.task_id,
            owner=owner,
            attempt=lease.attempt,
            progress=_given(lease.progress),
        )
        for lease in call.asked.leases
    ]
    answers = await _own_many(call, words)
    return show(
        BatchAnswer([_item(word, answer) for word, answer in zip(words, answers, strict=True)])
    )


@route("POST /v1/results", asks=ResultsBody, shows=BatchAnswer, refuses=LOG_TROUBLE, role="worker")
async def report_results(call: Call[ResultsBody]) -> Reply:
    """Report how many attempts of one owner ended."""
    owner = call.asked.owner
    most = call.core.settings.executor.execution.timeout_retry_max
    words = [_result(owner, item, most) for item in call.asked.results]
    answers = await _own_many(call, words)
    return show(
        BatchAnswer([_item(word, answer) for word, answer in zip(words, answers, strict=True)])
    )


def _result(owner: str, item: ResultItem, timeout_retry_max: int) -> commands.OwnerCommand:
    match item:
        case CompletedItem():
            return _complete(item.plan_id, item.task_id, owner, item)
        case FailedItem():
            return _fail(item.plan_id, item.task_id, owner, item, timeout_retry_max)
        case ReleasedItem():
            return _release(item.plan_id, item.task_id, owner, item)
        case _:
            raise AssertionError(item)


async def _own_many(
    call: Call[HeartbeatsBody] | Call[ResultsBody], words: Sequence[commands.OwnerCommand]
) -> Sequence[OwnerAnswer | Refused | TooLarge]:
    """Each word's answer. One that is too large must not hide what became of the others."""
    origin = call.origin(call.asked.owner)
    try:
        return await call.core.own_many(words, origin)
    except TooLarge:  # saying the others again is answered "duplicate"
        return await asyncio.gather(*(_own_unless_too_large(call, word) for word in words))


async def _own_unless_too_large(
    call: Call[HeartbeatsBody] | Call[ResultsBody], word: commands.OwnerCommand
) -> OwnerAnswer | Refused | TooLarge:
    try:
        return await call.core.own(word, call.origin(word.owner))
    except TooLarge as error:
        return error


def _item(word: commands.OwnerCommand, answer: OwnerAnswer | Refused | TooLarge) -> BatchItem:
    plan_id, task_id, attempt = word.plan_id, word.task_id, word.attempt
    if isinstance(answer, OwnerAnswer):
        renewed = isinstance(word, commands.Heartbeat)
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


ROUTES = (
    claim_tasks,
    start_task,
    renew_lease,
    show_progress,
    complete_task,
    fail_task,
    release_task,
    renew_leases,
    report_results,
)
