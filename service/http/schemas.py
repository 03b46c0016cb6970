"""What may be asked: bodies and queries with their limits, as API.md describes them.

Unknown fields are refused, so a typo is never silently ignored. JSON that Holdfast passes on unread
is a ``Raw``; `service.http.intake` makes sure of it.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from projections.read_models.pagination import MAX_LIMIT
from streams.plan.events import EMPTY_OBJECT, NOTHING, FailureRule, JoinRule, TaskType
from streams.plan.lifecycle import ExecutionStatus, PlanStatus, TaskStatus
from streams.plan.limits import LARGEST, MAX_LEASE_S, MAX_SECONDS, MAX_TASKS

MAX_BATCH = 500
MAX_WAIT_S = 30

# "$" alone would let a line break through at the end; JSON Schema's "$" does not (see openapi.py).
END = r"$(?!\n)"
ID_PATTERN = rf"^[A-Za-z0-9_-]{{1,64}}{END}"
NO_CONTROL = r"^[^\x00-\x1f\x7f]*" + END

Id = Annotated[str, Meta(pattern=ID_PATTERN, description="1 to 64 letters, digits, - or _")]
Owner = Annotated[
    str,
    Meta(
        pattern=rf"^[A-Za-z0-9_.:@/-]{{1,128}}{END}",
        description="who holds the lease: a worker's instance id",
    ),
]
TaskKind = Annotated[str, Meta(pattern=rf"^[A-Za-z0-9_.:@/-]{{1,128}}{END}")]
ErrorType = Annotated[str, Meta(pattern=rf"^[A-Za-z0-9_.:/-]{{1,64}}{END}")]
ModelName = Annotated[str, Meta(pattern=NO_CONTROL, min_length=1, max_length=200)]
Label = Annotated[str, Meta(pattern=NO_CONTROL, max_length=128)]
LabelName = Annotated[str, Meta(pattern=NO_CONTROL, min_length=1, max_length=128)]
Name = Annotated[str, Meta(max_length=256)]
ReasonText = Annotated[str, Meta(max_length=1_000)]
ErrorMessage = Annotated[str, Meta(max_length=10_000)]
Priority = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Attempt = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Budget = Annotated[int, Meta(ge=0, le=1_000)]
Tokens = Annotated[int, Meta(ge=0, le=LARGEST)]
Sequence = Annotated[int, Meta(ge=0, le=LARGEST)]
LeaseS = Annotated[float, Meta(ge=0.1, le=MAX_LEASE_S)]
Seconds = Annotated[float, Meta(gt=0, le=MAX_SECONDS)]
Delay = Annotated[float, Meta(ge=0, le=MAX_SECONDS)]


def _nothing() -> Raw:
    return NOTHING


def _empty() -> Raw:
    return EMPTY_OBJECT


class Body(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON object of a request."""


# -- plans ------------------------------------------------------------------------------------


class TaskBody(Body, frozen=True, kw_only=True):
    """One task of a plan; `input` is any JSON."""

    id: Id
    kind: TaskKind
    type: TaskType = "worker"
    input: Raw = field(default_factory=_empty)
    depends_on: Annotated[tuple[Id, ...], Meta(max_length=MAX_TASKS)] = ()
    join: JoinRule = "all"
    quorum: Annotated[int, Meta(ge=1, le=MAX_TASKS)] | None = None
    on_failure: FailureRule = "fail_plan"
    priority: Priority = 0
    max_retries: Budget = 3
    max_lost_leases: Budget = 3
    timeout_s: Seconds | None = None
    lease_s: LeaseS | None = None
    target: Id | None = None


class PlanBody(Body, frozen=True, kw_only=True):
    """A plan: a DAG of tasks; `context` is any JSON."""

    id: Id | None = None
    name: Name = ""
    context: Raw = field(default_factory=_empty)
    labels: Annotated[dict[LabelName, Label], Meta(max_length=32)] = {}
    priority: Priority = 0
    tasks: Annotated[tuple[TaskBody, ...], Meta(min_length=1, max_length=MAX_TASKS)]


class ReasonBody(Body, frozen=True, kw_only=True):
    """Why an operator acts."""

    reason: ReasonText = ""


# -- leases -----------------------------------------------------------------------------------


class TokenUsageBody(Body, frozen=True, kw_only=True):
    """Language-model tokens that an attempt used."""

    input_tokens: Tokens = 0
    output_tokens: Tokens = 0
    total_tokens: Tokens = 0
    cached_tokens: Tokens | UnsetType = UNSET
    reasoning_tokens: Tokens | UnsetType = UNSET
    estimated: bool | UnsetType = UNSET


class VerdictBody(Body, frozen=True, kw_only=True):
    """A critic's judgement of its target."""

    pass_: bool = field(name="pass")
    feedback: Raw = field(default_factory=_nothing)


class ClaimBody(Body, frozen=True, kw_only=True):
    """A wish for work."""

    owner: Owner
    limit: Annotated[int, Meta(ge=1, le=MAX_BATCH)] = 1
    kinds: Annotated[tuple[TaskKind, ...], Meta(min_length=1, max_length=256)] | None = None
    lease_s: LeaseS | None = None
    wait_s: Annotated[float, Meta(ge=0, le=MAX_WAIT_S)] = 0


class OwnerBody(Body, frozen=True, kw_only=True):
    """Whose word it is, and about which attempt."""

    owner: Owner
    attempt: Attempt


class HeartbeatBody(OwnerBody, frozen=True, kw_only=True):
    """Renew the lease, and perhaps show progress."""

    progress: Raw | UnsetType = UNSET


class ProgressBody(OwnerBody, frozen=True, kw_only=True):
    """Show partial work."""

    data: Raw


class CompleteBody(OwnerBody, frozen=True, kw_only=True):
    """The attempt succeeded; critics give a verdict."""

    output: Raw = field(default_factory=_nothing)
    verdict: VerdictBody | None = None
    model_name: ModelName | None = None
    token_usage: TokenUsageBody | None = None


class FailBody(OwnerBody, frozen=True, kw_only=True):
    """The attempt failed; `retry_in_s` overrides the backoff."""

    error_type: ErrorType
    error_message: ErrorMessage = ""
    retryable: bool = True
    retry_in_s: Delay | None = None
    model_name: ModelName | None = None
    token_usage: TokenUsageBody | None = None


class ReleaseBody(OwnerBody, frozen=True, kw_only=True):
    """The lease is given back unspent."""

    reason: ReasonText = ""


# -- leases, many at once ---------------------------------------------------------------------


class LeaseItem(Body, frozen=True, kw_only=True):
    """One lease to renew."""

    plan_id: Id
    task_id: Id
    attempt: Attempt
    progress: Raw | UnsetType = UNSET


class HeartbeatsBody(Body, frozen=True, kw_only=True):
    """Renew many leases of one owner."""

    owner: Owner
    leases: Annotated[tuple[LeaseItem, ...], Meta(max_length=MAX_BATCH)]


class ResultItem(Body, frozen=True, kw_only=True, tag_field="outcome"):
    """How one attempt ended."""

    plan_id: Id
    task_id: Id
    attempt: Attempt


class CompletedItem(ResultItem, frozen=True, kw_only=True, tag="completed"):
    """It succeeded."""

    output: Raw = field(default_factory=_nothing)
    verdict: VerdictBody | None = None
    model_name: ModelName | None = None
    token_usage: TokenUsageBody | None = None


class FailedItem(ResultItem, frozen=True, kw_only=True, tag="failed"):
    """It failed."""

    error_type: ErrorType
    error_message: ErrorMessage = ""
    retryable: bool = True
    retry_in_s: Delay | None = None
    model_name: ModelName | None = None
    token_usage: TokenUsageBody | None = None


class ReleasedItem(ResultItem, frozen=True, kw_only=True, tag="released"):
    """It was given back unspent."""

    reason: ReasonText = ""


class ResultsBody(Body, frozen=True, kw_only=True):
    """The ends of many attempts of one owner."""

    owner: Owner
    results: Annotated[
        tuple[CompletedItem | FailedItem | ReleasedItem, ...], Meta(max_length=MAX_BATCH)
    ]


# -- queries ----------------------------------------------------------------------------------

Limit = Annotated[int, Meta(ge=1, le=MAX_LIMIT)]
Cursor = Annotated[str, Meta(max_length=64, description="`next` of the page before")]


class NoQuery(Body, frozen=True, kw_only=True):
    """Nothing may be asked."""


class Query(Body, frozen=True, kw_only=True):
    """What every read takes: the sequence that must be visible."""

    min_sequence: Sequence | None = None


class PageQuery(Query, frozen=True, kw_only=True):
    """What every list takes."""

    after: Cursor | None = None
    limit: Limit = 50


class PlansQuery(PageQuery, frozen=True, kw_only=True):
    """Which plans; `label` is `key` or `key=value`."""

    status: PlanStatus | None = None
    label: Annotated[str, Meta(max_length=257)] | None = None


class TasksQuery(PageQuery, frozen=True, kw_only=True):
    """Which tasks."""

    status: TaskStatus | None = None
    kind: TaskKind | None = None
    owner: Owner | None = None
    plan_id: Id | None = None


class ExecutionsQuery(PageQuery, frozen=True, kw_only=True):
    """Which attempts."""

    plan_id: Id | None = None
    task_id: Id | None = None
    status: ExecutionStatus | None = None
    error_type: ErrorType | None = None
    model_name: ModelName | None = None


class AuditQuery(PageQuery, frozen=True, kw_only=True):
    """Which audit entries."""

    event: Annotated[str, Meta(pattern=rf"^[a-z0-9_]{{1,64}}{END}")] | None = None
    plan_id: Id | None = None
    task_id: Id | None = None
    owner: Owner | None = None


# -- answers that only HTTP gives ---------------------------------------------------------------

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
