"""One granted lease in this worker: its clock, its cancellation and what it has to show."""

from math import inf
from threading import Lock
from time import monotonic
from typing import Any

import msgspec
from msgspec import Raw

from holdfast_worker.cancellation import Cancellation
from holdfast_worker.handler import Handler
from holdfast_worker.limits import LIMITS
from holdfast_worker.progress import PendingProgress, Shown
from holdfast_worker.task import Assignment, Keep, TaskRun, TaskType

FENCE_SHARE = 2 / 3  # of the lease: without a renewal for so long the worker stops by itself
BEATS_PER_LEASE = 3

Key = tuple[str, str, int]
"""Plan, task and attempt: no two leases share it."""


class AttemptKey(msgspec.Struct, frozen=True):
    """A `Key` as requests and answers name it."""

    plan_id: str
    task_id: str
    attempt: int


class Claim(Assignment, frozen=True, kw_only=True):
    """A lease as the server grants it; fields that this version does not know are ignored."""

    lease_s: float
    type: TaskType = "worker"
    input: Raw = Raw(b"{}")
    context: Raw = Raw(b"{}")
    feedback: Raw = Raw(b"null")
    retry: int = 0
    started: bool = False


class Lease:
    """A claim and how fresh it is; times are on this process's monotonic clock.

    ``renewed_at`` is never later than the renewal that it stands for, so the lease is judged
    shorter than it is, never longer. The worker's own loop writes it; `show` may be called from
    any thread.
    """

    def __init__(
        self,
        claim: Claim,
        handler: Handler[..., Any],
        granted_at: float,
        progress_s: float = LIMITS.progress_s,
    ) -> None:
        self.claim = claim
        self.handler = handler
        self.key: Key = (claim.plan_id, claim.task_id, claim.attempt)
        self.renewed_at = granted_at
        self.beats_at = granted_at + claim.lease_s / BEATS_PER_LEASE
        self.times_out_at = monotonic() + claim.timeout_s
        self.shows_at = 0.0  # when progress may be sent next
        self.progress_s = progress_s
        self.report_until = inf  # set when the result is there
        self.gives_up_at = inf  # when a cancelled handler is no longer waited for
        self.cancellation = Cancellation()
        self.in_flight = False  # a heartbeat with this lease is on its way
        self.bare = False  # the last one came to nothing: the next one shows nothing
        self.ended = False  # its result waits to be reported, or was
        self.begun = False  # its handler was started
        self.handler_ended = False
        self.run: TaskRun | None = None
        self._lock = Lock()
        self._progress: PendingProgress | None = None  # most handlers show nothing

    @property
    def fence_at(self) -> float:
        """When the handler must stop unless the lease is renewed."""
        return self.renewed_at + self.claim.lease_s * FENCE_SHARE

    def renewed(self, asked_at: float) -> None:
        """A renewal that was asked for at ``asked_at`` has been accepted."""
        self.bare = False
        self.renewed_at = max(self.renewed_at, asked_at)
        self.beats_at = self.renewed_at + self.claim.lease_s / BEATS_PER_LEASE

    def run_with(self, keep: Keep) -> TaskRun:
        """What the handler is given."""
        run = self.handler.task_class(self.claim, self.cancellation, self.show, keep)
        self.run = run
        return run

    # -- progress ---------------------------------------------------------------------------

    def show(self, shown: Shown) -> None:
        """Keep what a handler showed until it is sent; ignored once the attempt has ended."""
        with self._lock:
            if not self.ended:
                self._progress = self._progress or PendingProgress()
                self._progress.add(shown)

    @property
    def has_progress(self) -> bool:
        """Whether something waits to be shown."""
        return bool(self._progress)

    def take_progress(self) -> Raw | None:
        """The next progress to send, to be followed by `settle_progress`."""
        with self._lock:
            return None if self._progress is None else self._progress.take()

    def settle_progress(self, *, stored: bool) -> None:
        """What was taken is in the log, or has to be sent again."""
        with self._lock:
            if self._progress is not None:
                self._progress.settle(stored=stored)
