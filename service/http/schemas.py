"""The bodies of requests with their bounds, as API.md describes them.

Unknown fields are refused, so a typo is never silently ignored. JSON that Holdfast passes on unread
is a ``Raw``; `service.http.strict_json` proves that it can be read.
"""

from typing import Annotated

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from streams.plan.events import EMPTY_OBJECT, FailureRule, JoinRule, TaskType
from streams.plan.limits import (
    MAX_LEASE_S,
    MAX_TASKS,
    AttemptNumber,
    Budget,
    DelayS,
    Name,
    Priority,
    Quorum,
    TimeoutS,
)
from streams.plan.results import Completion, Failing, ModelName, TokenUsage, Verdict, nothing

MAX_BATCH = 500
MAX_WAIT_S = 30

# "$" alone would allow a line break at the end; JSON Schema's "$" does not (see openapi.py).
END = r"$(?!\n)"
ID_PATTERN = rf"^[A-Za-z0-9_-]{{1,64}}{END}"
OWNER_PATTERN = rf"^[A-Za-z0-9_.:@/-]{{1,128}}{END}"
NO_CONTROL = r"^[^\x00-\x1f\x7f]*" + END
NO_CONTROL_NO_EQUALS = r"^[^\x00-\x1f\x7f=]*" + END
EVENT_PATTERN = rf"^[a-z0-9_]{{1,64}}{END}"

PATTERNS = {
    ID_PATTERN: "1 to 64 letters, digits, - or _",
    OWNER_PATTERN: "1 to 128 letters, digits or . : @ / - _",
    NO_CONTROL: "text without control characters",
    NO_CONTROL_NO_EQUALS: "text without control characters and without =",
    EVENT_PATTERN: "1 to 64 small letters, digits or _",
}
"""What a user reads in the place of a pattern."""

Id = Annotated[str, Meta(pattern=ID_PATTERN, description=PATTERNS[ID_PATTERN])]
Owner = Annotated[
    str, Meta(pattern=OWNER_PATTERN, description="who holds the lease: a worker's instance id")
]
TaskKind = Annotated[str, Meta(pattern=OWNER_PATTERN)]
LabelValue = Annotated[str, Meta(pattern=NO_CONTROL, max_length=128)]
LabelName = Annotated[str, Meta(pattern=NO_CONTROL_NO_EQUALS, min_length=1, max_length=128)]
ReasonText = Annotated[str, Meta(max_length=1_000)]
ErrorText = Annotated[str, Meta(description="recorded shortened when it is long")]
RequestedLeaseS = Annotated[float, Meta(ge=0.1, le=MAX_LEASE_S)]
CheckpointKey = Annotated[str, Meta(pattern=NO_CONTROL, min_length=1, max_length=128)]


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
    quorum: Quorum | None = None
    on_failure: FailureRule = "fail_plan"
    priority: Priority = 0
    max_retries: Budget = 3
    max_lost_leases: Budget = 3
    timeout_s: TimeoutS | None = None
    lease_s: RequestedLeaseS | None = None
    target: Id | None = None


class PlanBody(Body, frozen=True, kw_only=True):
    """A plan: a DAG of tasks; `context` is any JSON."""

    id: Id | None = None
    name: Name = ""
    context: Raw = field(default_factory=_empty)
    labels: Annotated[dict[LabelName, LabelValue], Meta(max_length=32)] = {}
    priority: Priority = 0
    tasks: Annotated[tuple[TaskBody, ...], Meta(min_length=1, max_length=MAX_TASKS)]


class RetryBody(Body, frozen=True, kw_only=True):
    """Why an operator retries; `fresh` drops what the failed attempts kept as checkpoints."""

    reason: ReasonText = ""
    fresh: bool = False


class ReasonBody(Body, frozen=True, kw_only=True):
    """Why an operator acts."""

    reason: ReasonText = ""


class TakeBackBody(Body, frozen=True, kw_only=True):
    """Why an operator takes a lease back from its owner; `attempt` is the one that is meant."""

    attempt: AttemptNumber
    reason: ReasonText = ""


class SignInBody(Body, frozen=True, kw_only=True):
    """A token to exchange for a session cookie."""

    token: Annotated[str, Meta(max_length=256)]


# -- leases -----------------------------------------------------------------------------------


class TokenUsageBody(TokenUsage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Language-model tokens that an attempt used."""


class VerdictBody(Verdict, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A critic's judgement of its target."""

    feedback: Raw = field(default_factory=nothing)


class ClaimBody(Body, frozen=True, kw_only=True):
    """Which tasks a worker wants to claim; with `start` its attempts count as started."""

    owner: Owner
    limit: Annotated[int, Meta(ge=1, le=MAX_BATCH)] = 1
    kinds: Annotated[tuple[TaskKind, ...], Meta(min_length=1, max_length=256)] | None = None
    lease_s: RequestedLeaseS | None = None
    wait_s: Annotated[float, Meta(ge=0, le=MAX_WAIT_S)] = 0
    start: bool = False


class ClaimOneBody(Body, frozen=True, kw_only=True):
    """Who claims one chosen task; with `start` the attempt counts as started."""

    owner: Owner
    lease_s: RequestedLeaseS | None = None
    start: bool = False


class OwnerBody(Body, frozen=True, kw_only=True):
    """Who holds the lease, and of which attempt."""

    owner: Owner
    attempt: AttemptNumber


class HeartbeatBody(OwnerBody, frozen=True, kw_only=True):
    """Renew the lease, and perhaps show progress."""

    progress: Raw | UnsetType = UNSET


class ProgressBody(OwnerBody, frozen=True, kw_only=True):
    """Show partial work."""

    data: Raw


class CheckpointBody(OwnerBody, frozen=True, kw_only=True):
    """Keep a value for later attempts; `token_usage` is what was used since the last report."""

    key: CheckpointKey
    value: Raw
    token_usage: TokenUsageBody | None = None


class CompletionBody(Completion, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An attempt succeeded; critics give a verdict."""

    verdict: VerdictBody | None = None
    token_usage: TokenUsageBody | None = None


class FailingBody(Failing, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An attempt failed; `retry_in_s` overrides the backoff."""

    error_type: ErrorText
    error_message: ErrorText = ""
    token_usage: TokenUsageBody | None = None


class GivenBack(Body, frozen=True, kw_only=True):
    """A lease is given back unspent; `retry_in_s` is when the task may be claimed again.

    The tokens that its attempt used are recorded all the same.
    """

    reason: ReasonText = ""
    retry_in_s: DelayS | None = None
    model_name: ModelName | None = None
    token_usage: TokenUsageBody | None = None


class CompleteBody(CompletionBody, frozen=True, kw_only=True):
    """The attempt succeeded; critics give a verdict."""

    owner: Owner
    attempt: AttemptNumber


class FailBody(FailingBody, frozen=True, kw_only=True):
    """The attempt failed; `retry_in_s` overrides the backoff."""

    owner: Owner
    attempt: AttemptNumber


class ReleaseBody(GivenBack, frozen=True, kw_only=True):
    """The lease is given back unspent."""

    owner: Owner
    attempt: AttemptNumber


# -- leases, many at once ---------------------------------------------------------------------


class LeaseItem(Body, frozen=True, kw_only=True):
    """One lease to renew."""

    plan_id: Id
    task_id: Id
    attempt: AttemptNumber
    progress: Raw | UnsetType = UNSET


class HeartbeatsBody(Body, frozen=True, kw_only=True):
    """Renew many leases of one owner."""

    owner: Owner
    leases: Annotated[tuple[LeaseItem, ...], Meta(max_length=MAX_BATCH)]


class CompletedItem(
    CompletionBody, frozen=True, kw_only=True, tag_field="outcome", tag="completed"
):
    """One attempt of many succeeded."""

    plan_id: Id
    task_id: Id
    attempt: AttemptNumber


class FailedItem(FailingBody, frozen=True, kw_only=True, tag_field="outcome", tag="failed"):
    """One attempt of many failed."""

    plan_id: Id
    task_id: Id
    attempt: AttemptNumber


class ReleasedItem(GivenBack, frozen=True, kw_only=True, tag_field="outcome", tag="released"):
    """One lease of many is given back unspent."""

    plan_id: Id
    task_id: Id
    attempt: AttemptNumber


class CheckpointedItem(Body, frozen=True, kw_only=True, tag_field="outcome", tag="checkpointed"):
    """One attempt of many keeps a value and goes on; its lease is renewed."""

    plan_id: Id
    task_id: Id
    attempt: AttemptNumber
    key: CheckpointKey
    value: Raw
    token_usage: TokenUsageBody | None = None


ResultItem = CompletedItem | FailedItem | ReleasedItem | CheckpointedItem


class ResultsBody(Body, frozen=True, kw_only=True):
    """The ends of many attempts of one owner, and what those that go on keep."""

    owner: Owner
    results: Annotated[tuple[ResultItem, ...], Meta(max_length=MAX_BATCH)]
