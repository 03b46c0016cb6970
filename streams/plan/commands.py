"""Every request that `streams.plan.decide` can judge, in the imperative.

A command carries all it needs, ids included; time is handed to ``decide`` beside it. Each one is
safe to repeat: saying it twice changes the world once.
"""

from typing import TypedDict

import msgspec
from msgspec import Raw

from streams.plan.events import Submitted, TokenUsage, Verdict


class Command(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A request about one plan."""

    plan_id: str


class Submit(Command, frozen=True, kw_only=True):
    """Accept a new plan."""

    plan: Submitted


class Pause(Command, frozen=True, kw_only=True):
    """Stop handing out the plan's tasks."""

    reason: str = ""


class Resume(Command, frozen=True, kw_only=True):
    """Hand out the plan's tasks again."""

    reason: str = ""


class Cancel(Command, frozen=True, kw_only=True):
    """End every unfinished task of the plan."""

    reason: str = ""


class Retry(Command, frozen=True, kw_only=True):
    """Give one failed task fresh budgets; ``fresh`` drops its checkpoints, too."""

    task_id: str
    reason: str = ""
    fresh: bool = False


class RetryAll(Command, frozen=True, kw_only=True):
    """Give all failed tasks of the plan fresh budgets; ``fresh`` drops their checkpoints, too."""

    reason: str = ""
    fresh: bool = False


class Finish(Command, frozen=True, kw_only=True):
    """Close a plan of which nothing runs any more (written by the instance that notices first)."""


class Forget(Command, frozen=True, kw_only=True):
    """Have a plan that has ended unknown (said by the retention daemon)."""


class Claim(Command, frozen=True, kw_only=True):
    """Take the lease of a claimable task; ``lease_s`` None means the task's own, or the default.

    ``start``: the owner executes at once. After ``timeout_s`` and one lease the attempt is failed;
    None: only its owner ends it. ``chosen``: the owner asked for this very task.
    """

    task_id: str
    owner: str
    lease_s: float | None = None
    start: bool = False
    timeout_s: float | None = None
    chosen: bool = False


class Expire(Command, frozen=True, kw_only=True):
    """Close an expired lease that no claim may take over (written by the lease monitor)."""

    task_id: str


class Overrun(Command, frozen=True, kw_only=True):
    """Fail an attempt that has outlived its time-out by one lease (said by the lease monitor)."""

    task_id: str
    timeout_retry_max: int = 1


class HeldAttempt(TypedDict):
    """What names an attempt and the owner of its lease, in every owner's command."""

    plan_id: str
    task_id: str
    owner: str
    attempt: int


class OwnerCommand(Command, frozen=True, kw_only=True):
    """A request that only the current lease's owner may make; fenced by owner and attempt."""

    task_id: str
    owner: str
    attempt: int


class Start(OwnerCommand, frozen=True, kw_only=True):
    """The owner begins to execute."""


class Heartbeat(OwnerCommand, frozen=True, kw_only=True):
    """Renew the lease; ``progress`` (any JSON) is shown to watchers."""

    progress: Raw | None = None


class Progress(OwnerCommand, frozen=True, kw_only=True):
    """Show partial work to watchers."""

    data: Raw


class Checkpoint(OwnerCommand, frozen=True, kw_only=True):
    """Keep ``value`` under ``key`` for later attempts, and renew the lease."""

    key: str
    value: Raw
    token_usage: TokenUsage | None = None


class Complete(OwnerCommand, frozen=True, kw_only=True):
    """Report success; critics must give a ``verdict``, workers must not."""

    output: Raw = Raw(b"null")
    verdict: Verdict | None = None
    model_name: str | None = None
    token_usage: TokenUsage | None = None


class Fail(OwnerCommand, frozen=True, kw_only=True):
    """Report failure; ``retry_in_s`` overrides the backoff.

    ``timeout_retry_max`` bounds how many time-outs are tried again.
    """

    error_type: str
    error_message: str = ""
    retryable: bool = True
    retry_in_s: float | None = None
    timeout_retry_max: int = 1
    model_name: str | None = None
    token_usage: TokenUsage | None = None


class Release(OwnerCommand, frozen=True, kw_only=True):
    """Give the lease back unspent; the tokens that its attempt used are recorded.

    ``retry_in_s`` is when the task may be claimed again; None: at once, or later when it has been
    given back several times in a row.
    """

    reason: str = ""
    retry_in_s: float | None = None
    model_name: str | None = None
    token_usage: TokenUsage | None = None
