"""The parameters of paths, queries and headers with their bounds, as API.md describes them.

`service.http.guards` refuses what a handler does not declare; Litestar checks what it does.
"""

from typing import Annotated

from litestar.params import HeaderParameter, PathParameter, QueryParameter

from projections.read_models.pagination import MAX_CURSOR_LENGTH, MAX_LIMIT
from service.http.schemas import (
    EVENT_PATTERN,
    ID_PATTERN,
    NO_CONTROL,
    OWNER_PATTERN,
    PATTERNS,
)
from streams.plan.lifecycle import ExecutionStatus, PlanStatus, TaskStatus
from streams.plan.limits import LARGEST

LATEST_S = 253_402_300_799  # the last second of the year 9999

_ID = PATTERNS[ID_PATTERN]
_FROM_ZERO = {"minimum": 0}  # Litestar's document leaves a bound of 0 out

# The guard proves ids in a path, and answers 404; the document shows the pattern all the same.
_ID_IN_PATH = PathParameter(schema_extra={"pattern": ID_PATTERN}, description=_ID)
PlanId = Annotated[str, _ID_IN_PATH]
TaskId = Annotated[str, _ID_IN_PATH]
OwnerInPath = Annotated[
    str, PathParameter(pattern=OWNER_PATTERN, description="an owner; a / in it is sent as %2F")
]
PagePath = Annotated[str, PathParameter(description="a file of the page")]
MetricName = Annotated[str, PathParameter(description="a dotted name of /actuator/metrics")]

MinSequence = Annotated[
    int | None,
    QueryParameter(
        ge=0,
        le=LARGEST,
        schema_extra=_FROM_ZERO,
        description="wait until this sequence is visible here",
    ),
]
AtSequence = Annotated[
    int | None,
    QueryParameter(
        ge=1, le=LARGEST, description="show the plan as it was at this sequence of the log"
    ),
]
Cursor = Annotated[
    str | None,
    QueryParameter(max_length=MAX_CURSOR_LENGTH, description="`next` of the page before"),
]
Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT, description="items in a page")]

IdFilter = Annotated[str | None, QueryParameter(pattern=ID_PATTERN, description=_ID)]
PlanStatusFilter = Annotated[PlanStatus | None, QueryParameter()]
TaskStatusFilter = Annotated[TaskStatus | None, QueryParameter()]
ExecutionStatusFilter = Annotated[ExecutionStatus | None, QueryParameter()]
LabelFilter = Annotated[
    str | None, QueryParameter(max_length=257, description="`name` or `name=value`")
]
KindFilter = Annotated[str | None, QueryParameter(pattern=OWNER_PATTERN)]
OwnerFilter = Annotated[str | None, QueryParameter(pattern=OWNER_PATTERN)]
ErrorTypeFilter = Annotated[str | None, QueryParameter(pattern=OWNER_PATTERN, max_length=64)]
ModelNameFilter = Annotated[
    str | None, QueryParameter(pattern=NO_CONTROL, min_length=1, max_length=200)
]
TextFilter = Annotated[
    str | None,
    QueryParameter(
        pattern=NO_CONTROL, min_length=1, max_length=200, description="part of the id or the name"
    ),
]
TimeFilter = Annotated[
    float | None,
    QueryParameter(ge=0, le=LATEST_S, schema_extra=_FROM_ZERO, description="Unix time in seconds"),
]
AuditEventFilter = Annotated[str | None, QueryParameter(pattern=EVENT_PATTERN)]

EventTypes = Annotated[
    str | None, QueryParameter(description="event types, separated by commas", max_length=1_000)
]
After = Annotated[
    int | None,
    QueryParameter(
        ge=0,
        le=LARGEST,
        schema_extra=_FROM_ZERO,
        description="the sequence of the last event seen; 0 is the beginning of the log",
    ),
]
ChangedAfter = Annotated[
    int,
    QueryParameter(
        ge=0,
        le=2**43 - 1,
        schema_extra=_FROM_ZERO,
        description="the `sequence` of the last answer; 0 is every task",
    ),
]
LastEventId = Annotated[
    str | None, HeaderParameter(name="Last-Event-ID", description="wins over `after`")
]
IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="stands for the plan's id when the body has none",
    ),
]
