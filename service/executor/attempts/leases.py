"""One granted lease in this process: its clock, its cancellation, and what it has to show."""

from concurrent.futures import Future
from threading import Lock
from time import monotonic

from msgspec import UNSET

from holdfast_worker.cancellation import Cancellation, StopReason
from holdfast_worker.progress import Channel, PendingProgress, Piece, Shown
from holdfast_worker.task import Assignment
from service.core.answers import Claim
from service.runtime.masking import GrowingText
from streams.plan import commands

FENCE_SHARE = 2 / 3  # of the lease: without a renewal for so long, the worker stops by itself


class Lease:
    """A claim and how fresh it is; shared by the dispatching, heartbeat and worker threads.

    ``claimed_at`` and ``renewed_at`` are on this process's monotonic clock and never later than
    the log time they stand for, so the lease is judged shorter than it is, never longer.
    """

    def __init__(self, claim: Claim, owner: str, claimed_at: float) -> None:
        self.claim = claim
        self.owner = owner
        self.claimed_at = claimed_at
        self.renewed_at = claimed_at
        self.cancellation = Cancellation()
        self._lock = Lock()
        self._progress = PendingProgress()
        self._texts: dict[Channel, GrowingText] = {}
        self._in_flight = False
        self._retired = False
        self._answered: Future[None] | None = None  # made when something waits for an answer

    @property
    def key(self) -> tuple[str, str, int]:
        """Plan, task and attempt: no two leases share it."""
        return self.claim.plan_id, self.claim.task_id, self.claim.attempt

    @property
    def held(self) -> commands.HeldAttempt:
        """What its owner's commands and its audit entries name."""
        plan_id, task_id, attempt = self.key
        return {"plan_id": plan_id, "task_id": task_id, "owner": self.owner, "attempt": attempt}

    @property
    def named(self) -> dict[str, str | int]:
        """What log lines name."""
        plan_id, task_id, attempt = self.key
        return {"plan_id": plan_id, "task_id": task_id, "attempt": attempt}

    @property
    def ends_at(self) -> float:
        """When the lease runs out (monotonic)."""
        return self.renewed_at + self.claim.lease_s

    @property
    def fence_at(self) -> float:
        """When the worker must stop by itself unless the lease is renewed (monotonic)."""
        return self.renewed_at + self.claim.lease_s * FENCE_SHARE

    @property
    def retired(self) -> bool:
        """Whether its attempt is over, so that nothing more is written for it."""
        return self._retired

    def assignment(self, timeout_s: float) -> Assignment:
        """The work as the handler is to see it."""
        claim = self.claim
        return Assignment(
            plan_id=claim.plan_id,
            task_id=claim.task_id,
            kind=claim.kind,
            type=claim.type,
            attempt=claim.attempt,
            fencing_token=claim.fencing_token,
            retry=claim.retry,
            timeout_s=timeout_s,
            input=claim.input,
            context=claim.context,
            dependencies=claim.dependencies,
            feedback=claim.feedback,
            checkpoints=claim.checkpoints,
            traceparent=claim.traceparent,
            tracestate="" if claim.tracestate is UNSET else claim.tracestate,
        )

    def stop(self, reason: StopReason) -> bool:
        """Ask the handler to stop; False if it had been asked before."""
        return self.cancellation.cancel(reason)

    def show(self, shown: Shown) -> bool:
        """Keep ``shown`` as progress to send; False when the attempt is over."""
        with self._lock:
            if self._retired:
                return False
            self._progress.add(self._masked(shown) if isinstance(shown, Piece) else shown)
            return True

    def _masked(self, piece: Piece) -> Piece:
        """The piece without known secrets, and without what may be the beginning of one."""
        text = self._texts.setdefault(piece.channel, GrowingText())
        return Piece(text.add(piece.text), piece.channel)

    @property
    def has_progress(self) -> bool:
        """Whether something waits to be shown."""
        return bool(self._progress)

    def next_command(self, *, renew: bool) -> commands.Heartbeat | commands.Progress | None:
        """The command to send now, noting that one is on its way; None: nothing to send."""
        with self._lock:
            if self._retired or self._in_flight:
                return None
            data = self._progress.take()
            if renew:
                self._in_flight = True
                return commands.Heartbeat(**self.held, progress=data)
            if data is None:
                return None
            self._in_flight = True
            return commands.Progress(**self.held, data=data)

    def last_progress(self) -> commands.Progress | None:
        """What a retired lease has to show before its result; None: nothing more."""
        with self._lock:
            if not self._texts and not self._progress:
                return None
            for channel, text in self._texts.items():
                self._progress.add(Piece(text.end(), channel))
            self._progress.settle(stored=True)
            data = self._progress.take()
        return None if data is None else commands.Progress(**self.held, data=data)

    def owner_write_ended(self, *, stored: bool) -> None:
        """The command from `next_command` has been answered, or never will be.

        Unless it was ``stored``, its progress is sent again.
        """
        with self._lock:
            self._in_flight = False
            self._progress.settle(stored=stored)
            answered, self._answered = self._answered, None
        if answered is not None:
            answered.set_result(None)

    def retire(self) -> "Future[None] | None":
        """Say nothing more; a future to wait for if a heartbeat or progress is on its way.

        Waiting keeps a late heartbeat from being refused after the result, which would look like
        a stale worker.
        """
        with self._lock:
            self._retired = True
            if self._in_flight and self._answered is None:
                self._answered = Future()
            return self._answered

    def renewed(self, asked_at: float) -> None:
        """A renewal that was asked for at ``asked_at`` (monotonic) has been accepted."""
        self.renewed_at = max(self.renewed_at, asked_at)

    def can_end(self) -> float:
        """How long a result may be tried (monotonic): one lease beyond its end.

        An expired lease that was not taken over may still be completed, and trying is safe: the
        core refuses an owner that lost it.
        """
        return max(self.ends_at, monotonic()) + self.claim.lease_s
