"""What the parts of a running worker share: the owner, its leases and the way to the server."""

import asyncio
from collections import deque
from collections.abc import Mapping
from time import monotonic
from typing import Any

import msgspec

from holdfast_worker.counters import Counters
from holdfast_worker.handler import Handler
from holdfast_worker.lease import Key, Lease
from holdfast_worker.limits import Limits
from holdfast_worker.logs import Notices
from holdfast_worker.outcome import Outcome, stopped
from holdfast_worker.wire import Wire


class Session:
    """The state of one worker while it runs; only its own loop changes it.

    ``leases`` are those whose result has not been settled; ``running`` counts the handlers that
    hold a slot, those that ignore their cancellation among them.
    """

    def __init__(
        self,
        *,
        owner: str,
        slots: int,
        handlers: Mapping[str, Handler[..., Any]],
        wire: Wire,
        limits: Limits,
        counters: Counters,
        notices: Notices,
    ) -> None:
        self.owner = owner
        self.slots = slots
        self.handlers = handlers
        self.wire = wire
        self.limits = limits
        self.counters = counters
        self.notices = notices
        self.leases: dict[Key, Lease] = {}
        self.running = 0
        self.alive_at = monotonic()  # when this loop last ran on time (monotonic)
        self.stopping: list[Lease] = []  # lost, while their handlers still run
        self.changed = asyncio.Event()  # a slot or a lease has become free
        self.outcomes: deque[tuple[Lease, Outcome]] = deque()
        self.outcomes_wait = asyncio.Event()

    def report(self, lease: Lease, outcome: Outcome) -> None:
        """Queue what became of an attempt; it is no longer renewed.

        It is tried for longer than its lease: one that has expired and that no other worker has
        taken may still end, and the server refuses an attempt that no longer counts.
        """
        lease.ended = True
        lease.report_until = monotonic() + self.limits.report_s
        self.outcomes.append((lease, outcome))
        self.outcomes_wait.set()

    def is_overtaken(self, asked_at: float) -> bool:
        """Whether the server has accepted others for long, and not what it was asked at a time.

        Then something between here and there refuses it for what it holds.
        """
        return self.wire.accepted_at - asked_at > self.limits.longest_pause_s

    def give_up(self, lease: Lease) -> None:
        """Report a cancelled attempt although its handler still runs, and keeps its slot."""
        self.warn_of_overrun(lease)
        reason = lease.cancellation.reason
        self.report(lease, stopped(reason, None, lease.run, lease.claim.timeout_s))

    def warn_of_overrun(self, lease: Lease) -> None:
        """Log that a handler still runs after its attempt was stopped."""
        self.notices.warn(
            "%s/%s#%d: the handler %s ignores its cancellation (%s) and keeps its slot until it "
            "returns; let it look at task.cancelled",
            *lease.key,
            lease.handler.name,
            lease.cancellation.reason,
        )

    def forget(self, lease: Lease) -> None:
        """The attempt is settled, or lost."""
        self.leases.pop(lease.key, None)
        self.changed.set()

    def lose(self, lease: Lease, status: str | None = None) -> None:
        """The server refused the attempt: stop its handler and report nothing of it.

        ``status`` is the task's, where the server named it.
        """
        if self.leases.get(lease.key) is not lease:
            return
        if status == "CANCELLED":
            self.counters.cancelled += 1
        else:
            self.counters.lost += 1
        lease.cancellation.cancel("fenced")
        if not lease.handler_ended:
            lease.gives_up_at = monotonic() + self.limits.grace_s
            self.stopping.append(lease)
        self.forget(lease)
        self.notices.warn("%s/%s#%d: the lease is lost", *lease.key)


class Standing(msgspec.Struct, frozen=True):
    """How the task stands whose lease was refused."""

    status: str | None = None


class ItemAnswer(msgspec.Struct, frozen=True):
    """What became of one heartbeat or result of many."""

    status: str
    cancel_requested: bool = False
    current: Standing | None = None
    detail: str = ""


class BatchAnswer(msgspec.Struct, frozen=True):
    """One entry for each report, in the order asked."""

    results: list[ItemAnswer]


ACCEPTED = frozenset({"accepted", "duplicate"})
LOST = frozenset({"guard_reject", "not_found", "not_allowed"})


def lose_if_refused(session: Session, lease: Lease, said: ItemAnswer) -> bool:
    """Whether ``said`` means that the attempt no longer counts; it is dropped then."""
    if said.status not in LOST:
        return False
    session.lose(lease, said.current.status if said.current is not None else None)
    return True
