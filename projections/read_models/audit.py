"""The audit trail as rows: what happened around the log, one row per AUDIT message."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from projections.read_models import bulk
from projections.read_models.database import Database, ReadModelCheckpoint
from projections.read_models.pagination import Page, Selection, checked_limit, key_of, read_page
from projections.read_models.views import Moment, moment
from streams.plan.events import NOTHING

STREAM = "AUDIT"

# The entry is kept as it was written; beside it only what it can be found by. The stream knows ids
# for two minutes only: an entry that was written again after a longer outage is one row here.
DDL = """
CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY,
    id TEXT UNIQUE,
    event TEXT NOT NULL,
    plan_id TEXT,
    task_id TEXT,
    owner TEXT,
    entry BLOB NOT NULL
);
CREATE INDEX audit_by_event ON audit(event);
CREATE INDEX audit_by_plan ON audit(plan_id, task_id) WHERE plan_id IS NOT NULL;
CREATE INDEX audit_by_owner ON audit(owner) WHERE owner IS NOT NULL;
"""

INSERT = bulk.insert_new(
    "audit", ("sequence", "id", "event", "plan_id", "task_id", "owner", "entry")
)

AuditClass = Literal["success", "always"]
# A message published by hand may hold any number; beyond this one none is a date.
At = Annotated[float, msgspec.Meta(ge=0, lt=253_402_300_800)]


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One message of the AUDIT stream (SIGNALS.md); ``at`` in seconds since the epoch.

    ``expected`` and ``actual`` are any JSON: what the writer assumed and what was there.
    ``principal`` is who proved to be the writer, where there are tokens.
    """

    at: At
    event: str
    class_: AuditClass = msgspec.field(name="class")
    plan_id: str | None = None
    task_id: str | None = None
    owner: str | None = None
    principal: str | None = None
    attempt: int | None = None
    expected: Raw = NOTHING
    actual: Raw = NOTHING
    trace_id: str | None = None
    instance: str | None = None
    detail: str | None = None


class AuditView(msgspec.Struct, kw_only=True):
    """One entry as ``GET /v1/audit`` shows it; ``sequence`` is its place in the AUDIT stream."""

    sequence: int
    at: Moment
    event: str
    class_: AuditClass = msgspec.field(name="class")
    plan_id: str | None
    task_id: str | None
    owner: str | None
    principal: str | None
    attempt: int | None
    expected: Raw
    actual: Raw
    trace_id: str | None
    instance: str | None
    detail: str | None
    unreadable: str | UnsetType = UNSET


_decode = msgspec.json.Decoder(Entry).decode


# -- rows -------------------------------------------------------------------------------------


def row(sequence: int, entry_id: str, payload: bytes) -> bulk.Row:
    """The row of the entry that stands at ``sequence`` of the AUDIT stream.

    Raises ValueError (msgspec's DecodeError is one) or RecursionError for what is no entry.
    """
    entry = _decode(payload)
    return (
        sequence,
        entry_id or None,
        entry.event,
        entry.plan_id,
        entry.task_id,
        entry.owner,
        payload,
    )


async def apply(database: Database, rows: Sequence[bulk.Row], sequence: int, epoch: str) -> None:
    """Write rows of entries, and that AUDIT has been read up to ``sequence``.

    Saying it twice is saying it once. Raises DatabaseUnavailable.
    """
    await database.write(INSERT.calls(rows), ReadModelCheckpoint(STREAM, sequence, epoch))


async def forget(database: Database, before: int) -> None:
    """Remove entries below sequence ``before``: the stream itself no longer has them."""
    await database.write([("DELETE FROM audit WHERE sequence < ?", [(before,)])])


async def start_anew(database: Database, epoch: str) -> None:
    """Forget everything: the stream ``epoch`` is another, and nothing of it has been read."""
    await database.write([("DELETE FROM audit", [()])], ReadModelCheckpoint(STREAM, 0, epoch))


# -- queries ----------------------------------------------------------------------------------


def _shown(found: tuple[Any, ...]) -> AuditView:
    sequence, event, encoded = found
    try:
        entry, unreadable = _decode(encoded), UNSET
    except (ValueError, RecursionError) as error:
        entry, unreadable = Entry(at=0, event=event, class_="always"), str(error)
    return AuditView(
        sequence=sequence,
        at=moment(entry.at),
        event=entry.event,
        class_=entry.class_,
        plan_id=entry.plan_id,
        task_id=entry.task_id,
        owner=entry.owner,
        principal=entry.principal,
        attempt=entry.attempt,
        expected=entry.expected,
        actual=entry.actual,
        trace_id=entry.trace_id,
        instance=entry.instance,
        detail=entry.detail,
        unreadable=unreadable,
    )


async def page(
    database: Database,
    *,
    event: str | None = None,
    plan_id: str | None = None,
    task_id: str | None = None,
    owner: str | None = None,
    after: str | None = None,
    limit: int = 50,
) -> Page[AuditView]:
    """Audit entries, the newest first."""
    before = None if after is None else key_of("audit", after)
    filters = {"event": event, "plan_id": plan_id, "task_id": task_id, "owner": owner}
    sql, parameters = statement(filters, before)
    most = checked_limit(limit)
    return await database.run(
        lambda reader: read_page(reader, "audit", sql, parameters, _shown, limit=most)
    )


def statement(filters: Mapping[str, str | None], before: int | None) -> tuple[str, Sequence[Any]]:
    """The query for entries that meet ``filters``, by column, and lie below ``before``."""
    chosen = Selection()
    for column, wanted in filters.items():
        if wanted is not None:
            chosen.add(f"{column} = ?", wanted)
    if before is not None:
        chosen.add("sequence < ?", before)
    # SQLite cannot know that a plan has few entries, while an event or an owner may have most.
    by_plan = "INDEXED BY audit_by_plan" if filters.get("plan_id") is not None else ""
    return (
        f"SELECT sequence, event, entry FROM audit {by_plan} {chosen.where} ORDER BY sequence DESC",
        chosen.parameters,
    )
