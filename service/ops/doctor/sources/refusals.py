"""Refused writes as evidence: audit entries, with the claims of the old and the new owner."""

from collections.abc import Iterable, Mapping
from contextlib import suppress

import msgspec
from msgspec import Raw

from projections.read_models import audit, executions
from projections.read_models.audit import AuditView, Entry
from projections.read_models.database import Database
from projections.read_models.executions import ClaimView
from service.ops.doctor.evidence import StaleWrite
from streams.jetstream.read_only import Inspection
from streams.json_values import UNREADABLE
from streams.log import Fact
from streams.plan.events import Claimed

REFUSALS = ("claimed_update_guard_reject", "lease_renew_guard_reject")
MOST_ENTRIES = 20  # of each kind of refusal
MOST_TASKS = 10  # whose claims are looked up
MOST_MESSAGES = 1_000  # of the stream

TaskPlace = tuple[str, str]
ClaimsByTask = Mapping[TaskPlace, Mapping[int, ClaimView]]
"""The claims of each task by attempt."""


class AuditedRefusal(msgspec.Struct, frozen=True):
    """An audit entry about a refused write to a task, with its place in the stream and log time."""

    sequence: int
    at: float
    entry: Entry | AuditView
    task: TaskPlace


class LeaseHolding(msgspec.Struct, frozen=True):
    """Who an entry says held or holds the lease; ``sequence`` is the claim's."""

    owner: str | None = None
    attempt: int | None = None
    sequence: int | None = None
    status: str | None = None


_holding = msgspec.json.Decoder(LeaseHolding | None).decode
_decode_entry = msgspec.json.Decoder(Entry).decode


async def refusals_in(database: Database, since: float) -> tuple[StaleWrite, ...]:
    """The newest refusals after log time ``since``, newest first. Raises DatabaseUnavailable."""
    found: list[AuditedRefusal] = []
    for event in REFUSALS:
        page = await audit.page(database, event=event, limit=MOST_ENTRIES)
        found += [
            refusal
            for entry in page.items
            if (refusal := _refusal(entry.sequence, entry.at.timestamp(), entry))
            and refusal.at >= since
        ]
    claims = {
        place: await executions.claims_of_task(database, *place) for place in places_of(found)
    }
    return stale_writes(found, claims)


async def refusals_on(log: Inspection, since: float) -> tuple[StaleWrite, ...]:
    """The newest refusals in the stream AUDIT, with the log's claims. Raises LogUnavailable."""
    found: list[AuditedRefusal] = []
    for event in REFUSALS:
        messages = await log.audited(event, since, MOST_MESSAGES)
        found += [
            refusal
            for message in messages[-MOST_ENTRIES:]
            if (entry := _entry(message.payload))
            and (refusal := _refusal(message.sequence, entry.at, entry))
        ]
    claims: ClaimsByTask = {place: await _claims(log, place) for place in places_of(found)}
    return stale_writes(found, claims)


def _refusal(sequence: int, at: float, entry: Entry | AuditView) -> AuditedRefusal | None:
    """What an entry says; None if it names no task."""
    if not entry.plan_id or not entry.task_id:
        return None
    return AuditedRefusal(sequence, at, entry, (entry.plan_id, entry.task_id))


def _entry(payload: bytes) -> Entry | None:
    try:
        return _decode_entry(payload)
    except UNREADABLE:
        return None


async def _claims(log: Inspection, place: TaskPlace) -> dict[int, ClaimView]:
    return {
        fact.event.attempt: ClaimView(fact.event.attempt, fact.event.owner, fact.sequence)
        for fact in await log.log.read(*place)
        if isinstance(fact, Fact) and isinstance(fact.event, Claimed)
    }


def places_of(refusals: Iterable[AuditedRefusal]) -> list[TaskPlace]:
    """The tasks that they name, a bounded number."""
    return list(dict.fromkeys(each.task for each in refusals))[:MOST_TASKS]


def stale_writes(
    refusals: Iterable[AuditedRefusal], claims: ClaimsByTask
) -> tuple[StaleWrite, ...]:
    """The refusals that say whose write it was, with both claims, the newest first."""
    newest_first = sorted(refusals, key=lambda each: -each.sequence)
    writes = (_stale_write(each, claims) for each in newest_first)
    return tuple(write for write in writes if write is not None)


def _stale_write(refusal: AuditedRefusal, claims: ClaimsByTask) -> StaleWrite | None:
    entry, (plan_id, task_id) = refusal.entry, refusal.task
    expected, actual = _who(entry.expected), _who(entry.actual)
    owner, attempt = expected.owner or entry.owner, expected.attempt or entry.attempt
    if owner is None or attempt is None:
        return None
    by_attempt = claims.get(refusal.task, {})
    old, new = by_attempt.get(attempt), by_attempt.get(actual.attempt or 0)
    return StaleWrite(
        at=refusal.at,
        event=entry.event,
        plan_id=plan_id,
        task_id=task_id,
        old_owner=owner,
        old_attempt=attempt,
        old_claim_sequence=old.sequence if old else expected.sequence,
        # A task that has ended has no owner any more; who ended it stands in its claim.
        new_owner=actual.owner or (new.owner if new else None),
        new_attempt=actual.attempt,
        new_claim_sequence=new.sequence if new else actual.sequence,
        status=actual.status,
        audit_sequence=refusal.sequence,
        principal=entry.principal,
        detail=entry.detail,
    )


def _who(said: Raw) -> LeaseHolding:
    with suppress(msgspec.MsgspecError):
        return _holding(said) or LeaseHolding()
    return LeaseHolding()
