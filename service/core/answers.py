"""What the core answers to submissions, claims and reports: values, never exceptions."""

from collections.abc import Callable, Collection
from typing import Any, Literal

import msgspec
from msgspec import Raw

from projections.read_models.views import Moment, TaskView
from streams.decider import Contention
from streams.plan.decisions import Refusal
from streams.plan.events import TaskType
from streams.plan.limits import DEFAULT_LEASE_S, DEFAULT_TIMEOUT_S


class TooMuchUnfinished(msgspec.Struct, frozen=True):
    """No new plan for now: the unfinished ones take all the memory that they may."""

    detail: str


Refused = Refusal | Contention | TooMuchUnfinished


class Submission(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A plan is in the log; ``created`` is False when it already was.

    ``warnings`` are for a person to read: what in the plan looks like a key.
    """

    plan_id: str
    sequence: int
    created: bool
    warnings: tuple[str, ...] = ()


class Claim(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A lease that was granted, with all its owner needs to work.

    ``fencing_token`` is the claim's log sequence; ``lease_until - lease_s`` is its log time.
    ``dependencies`` maps each dependency's id to its output (null if the plan goes on without it),
    ``checkpoints`` the keys under which earlier attempts kept values to these values.
    ``started``: the attempt counts as started; its owner need not send `start`.
    ``traceparent`` (W3C) is the attempt's span in the trace of its plan, for the work to join;
    ``tracestate``, where the plan came with one, goes with it.
    """

    plan_id: str
    task_id: str
    attempt: int
    fencing_token: int
    kind: str
    type: TaskType
    input: Raw
    context: Raw
    dependencies: dict[str, Raw]
    checkpoints: dict[str, Raw] = {}
    feedback: Raw
    retry: int
    started: bool = False
    lease_until: Moment
    lease_s: float
    timeout_s: float
    traceparent: str = ""
    tracestate: str | msgspec.UnsetType = msgspec.UNSET


class ClaimRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A wish for work: at most ``limit`` tasks of ``kinds`` (None: any), waiting up to ``wait_s``.

    ``lease_s`` None means each task's own; the defaults are for tasks that state none.
    With ``start`` the attempts count as started. With ``bounded`` the server fails an attempt that
    outlives its time-out by one lease; without it the asker ends its attempts itself.
    ``gone`` tells whether the asker still waits for the answer.
    Of ``leave_to_others``, (plan, task) pairs, none is given while others may take it.
    """

    owner: str
    limit: int = 1
    kinds: tuple[str, ...] | None = None
    lease_s: float | None = None
    default_lease_s: float = DEFAULT_LEASE_S
    default_timeout_s: float = DEFAULT_TIMEOUT_S
    wait_s: float = 0
    start: bool = False
    bounded: bool = False
    gone: Callable[[], bool] | None = None
    leave_to_others: Collection[Any] = frozenset()


class ReleasedLease(msgspec.Struct, frozen=True, kw_only=True):
    """A lease that an owner gave back when it said goodbye."""

    plan_id: str
    task_id: str
    attempt: int


class AcceptedWrite(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An owner's command was accepted (now or before).

    ``lease_until`` is set while the task runs; ``cancel_requested`` asks the owner to stop
    because its plan has failed.
    """

    status: Literal["accepted", "duplicate"]
    sequence: int
    lease_until: Moment | None
    cancel_requested: bool


class OwnerAnswer(AcceptedWrite, frozen=True, kw_only=True, gc=False):
    """The same with the task as it is then."""

    task: TaskView


class Behind(Exception):
    """The read models did not reach the wanted sequence in time; ``sequence`` is where they are."""

    def __init__(self, sequence: int) -> None:
        super().__init__(f"the read models have reached sequence {sequence}")
        self.sequence = sequence


class BeyondHead(Exception):
    """The log has no such sequence yet; ``head`` is its last one, as its leader named it."""

    def __init__(self, sequence: int, head: int) -> None:
        super().__init__(f"the log has no sequence {sequence} yet, its last one is {head}")
        self.head = head
