"""Every fact that can stand in the log, in the past tense, exactly as it is stored.

Stored facts are for ever: names here are storage formats, changes are additive, and each stored
shape has a golden file in ``tests/contract/golden``. Facts carry durations (``lease_s``,
``retry_in_s``), never deadlines: a deadline is the message's own log time plus the duration, so
every instance, and every rebuild, computes the same one (DESIGN §3). Every field is bounded
(`streams.plan.limits`): a message beyond a bound is a bad fact.

Deliberately absent: who sent a fact and under which trace. That is `streams.log.Origin`, which
travels in message headers, because no rule may depend on it.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Raw

from streams.plan.limits import (
    MAX_TASKS,
    AttemptNumber,
    Budget,
    DelayS,
    LeaseS,
    Name,
    NameList,
    PlanLabels,
    Priority,
    Quorum,
    Text,
    TimeoutS,
)
from streams.plan.results import NOTHING, TokenUsage, Verdict

EMPTY_OBJECT = Raw(b"{}")

JoinRule = Literal["all", "any", "quorum"]
FailureRule = Literal["fail_plan", "continue"]
TaskType = Literal["worker", "critic"]
Lane = Literal["ready", "refining"]


class TaskSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a submitter asked of one task; it never changes after `Submitted`.

    ``input`` is JSON that Holdfast passes on unread. ``timeout_s`` and ``lease_s`` are seconds;
    what the submitter did not state is None, and the claimant chooses it.
    A critic's ``target`` is always among its ``depends_on`` (`streams.plan.dependencies.settle`).
    """

    id: Name
    kind: Name
    type: TaskType = "worker"
    input: Raw = EMPTY_OBJECT
    depends_on: NameList = ()
    join: JoinRule = "all"
    quorum: Quorum | None = None
    on_failure: FailureRule = "fail_plan"
    priority: Priority = 0
    max_retries: Budget = 3
    max_lost_leases: Budget = 3
    timeout_s: TimeoutS | None = None
    lease_s: LeaseS | None = None
    target: Name | None = None


class PlanEvent(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="event", omit_defaults=True, gc=False
):
    """A fact about a plan as a whole, on the subject ``plans.<plan>``."""


class TaskEvent(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="event", omit_defaults=True, gc=False
):
    """A fact about one attempt at a task, on the subject ``plans.<plan>.<task>``.

    ``owner`` and ``attempt`` fence it: any such fact whose pair no longer holds the lease is
    ignored by the fold (DESIGN §4, *Guards hold twice*).
    """

    owner: Name
    attempt: AttemptNumber


class Submitted(PlanEvent, frozen=True, kw_only=True, tag="submitted"):
    """A plan was accepted; its tasks form a DAG."""

    name: Name = ""
    context: Raw = EMPTY_OBJECT
    labels: PlanLabels = {}
    priority: Priority = 0
    tasks: Annotated[tuple[TaskSpec, ...], msgspec.Meta(max_length=MAX_TASKS)]


class Paused(PlanEvent, frozen=True, kw_only=True, tag="paused"):
    """An operator stopped claims; running tasks go on."""

    reason: Text = ""


class Resumed(PlanEvent, frozen=True, kw_only=True, tag="resumed"):
    """An operator let claims go on."""

    reason: Text = ""


class Cancelled(PlanEvent, frozen=True, kw_only=True, tag="cancelled"):
    """An operator ended every unfinished task of the plan at once."""

    reason: Text = ""


class Retried(PlanEvent, frozen=True, kw_only=True, tag="retried"):
    """An operator gave failed tasks fresh budgets: ``task_id`` and those in ``also``.

    Tasks that stay FAILED no longer stop the plan. A fact of an earlier version has no ``also``:
    there they went on to stop it. ``fresh``: the retried tasks lose their checkpoints.
    """

    task_id: Name
    reason: Text = ""
    also: NameList | None = None
    fresh: bool = False


class Finished(PlanEvent, frozen=True, kw_only=True, tag="finished"):
    """Nothing of the plan runs any more; the plan's last fact until an operator retries."""

    status: Literal["COMPLETED", "FAILED", "CANCELLED"]


class Forgotten(PlanEvent, frozen=True, kw_only=True, tag="forgotten"):
    """The plan had ended long before, and is unknown from here on: its other facts are removed.

    The fact stands in their place until the plan's id may be used again (`FORGOTTEN_S`). What
    stands before it on the plan's subjects, whole, in part or not at all, counts no more.
    """


class Claimed(TaskEvent, frozen=True, kw_only=True, tag="claimed"):
    """An owner took the lease of a new attempt for ``lease_s`` seconds from the fact's log time.

    ``previous_owner`` is set when an expired lease was taken over: a reclaim. It is ``silent``, and
    costs no lost lease, when that owner never reported on its attempt. ``started``: the owner
    executes from this fact on. An attempt that outlives ``timeout_s`` seconds by one lease is
    failed; None, in executors' claims and those of earlier versions: only its owner ends it.
    """

    lease_s: LeaseS
    lane: Lane = "ready"
    previous_owner: Name | None = None
    silent: bool = False
    started: bool = False
    timeout_s: TimeoutS | None = None


class Started(TaskEvent, frozen=True, kw_only=True, tag="started"):
    """The owner began to execute."""


class Heartbeat(TaskEvent, frozen=True, kw_only=True, tag="heartbeat"):
    """The owner renewed its lease for ``lease_s`` seconds from the fact's log time."""

    lease_s: LeaseS


class Progress(TaskEvent, frozen=True, kw_only=True, tag="progress"):
    """The owner showed partial work; for watchers only, it changes no state."""

    data: Raw = NOTHING


class Checkpointed(TaskEvent, frozen=True, kw_only=True, tag="checkpointed"):
    """The owner kept ``value`` under ``key`` for later attempts, and renewed its lease.

    ``token_usage`` is what it used since its last report of tokens.
    """

    key: Name
    value: Raw = NOTHING
    lease_s: LeaseS
    token_usage: TokenUsage | None = None


class Completed(TaskEvent, frozen=True, kw_only=True, tag="completed"):
    """The attempt succeeded."""

    output: Raw = NOTHING
    verdict: Verdict | None = None
    model_name: Name | None = None
    token_usage: TokenUsage | None = None


class Failed(TaskEvent, frozen=True, kw_only=True, tag="failed"):
    """The attempt failed; with ``retry_in_s`` the task is claimable again in so many seconds."""

    error_type: Name
    error_message: Text = ""
    retry_in_s: DelayS | None = None
    model_name: Name | None = None
    token_usage: TokenUsage | None = None


class Released(TaskEvent, frozen=True, kw_only=True, tag="released"):
    """The owner gave the lease back unspent; it costs neither a retry nor a lost lease.

    With ``retry_in_s`` the task is claimable again in so many seconds, else at once.
    Tokens may have been spent all the same, so model and usage are recorded here, too.
    """

    reason: Text = ""
    retry_in_s: DelayS | None = None
    model_name: Name | None = None
    token_usage: TokenUsage | None = None


PlanFact = Submitted | Paused | Resumed | Cancelled | Retried | Finished | Forgotten
TaskFact = Claimed | Started | Heartbeat | Progress | Checkpointed | Completed | Failed | Released
Event = PlanFact | TaskFact

TYPE_NAMES: dict[type, str] = {
    Submitted: "plan.submitted",
    Paused: "plan.paused",
    Resumed: "plan.resumed",
    Cancelled: "plan.cancelled",
    Retried: "plan.retried",
    Finished: "plan.finished",
    Forgotten: "plan.forgotten",
    Claimed: "task.claimed",
    Started: "task.started",
    Heartbeat: "task.heartbeat",
    Progress: "task.progress",
    Checkpointed: "task.checkpointed",
    Completed: "task.completed",
    Failed: "task.failed",
    Released: "task.released",
}
