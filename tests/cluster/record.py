"""What happened in a run, as plain values: calls, readers, probes, faults, and the log at the end.

The checker works on these alone. Times are the test's wall clock in seconds; the log's timestamps
come from the same clock, because the nodes run on the same machine and only the instances' clocks
are ever wrong.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from tests.cluster.ports import NUMBERS

Json = dict[str, Any]
TaskName = tuple[str, str]

NO_ANSWER = 0
"""The status of a call that was not answered: refused, reset, or given up by the caller."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request to one instance, and its answer.

    ``verb`` is the last part of the path ("submit", "pause", "claim", "start", "read" …).
    ``limit_s`` is the time within which it has to be answered. ``hung`` says that the caller gave
    up waiting, as opposed to a connection that was refused or reset.
    """

    instance: int
    verb: str
    plan_id: str = ""
    task_id: str = ""
    owner: str = ""
    attempt: int = 0
    asked_at: float
    answered_at: float
    limit_s: float
    status: int
    hung: bool = False
    is_problem: bool = True  # an error's body is application/problem+json
    code: str = ""
    said: str = ""  # the answer's own "status": accepted, duplicate, PAUSED …
    sequence: int = 0
    detail: str = ""


class Fact(msgspec.Struct, frozen=True):
    """One message of the log, read from NATS with nothing of Holdfast's."""

    sequence: int
    at: float
    plan_id: str
    task_id: str
    type: str
    data: Json

    @property
    def task(self) -> TaskName:
        return self.plan_id, self.task_id


class Reading(msgspec.Struct):
    """What one event reader was sent over all of its connections, after ``start``."""

    name: str
    start: int
    sequences: list[int] = []
    gaps: list[str] = []
    faults: list[str] = []


class Readiness(msgspec.Struct, frozen=True):
    """One answer of /readyz; status 0: none. ``warnings`` has what was seen, by check."""

    instance: int
    at: float
    status: int
    failing: tuple[str, ...] = ()
    warnings: dict[str, str] = {}


class Diagnosis(msgspec.Struct, frozen=True):
    """One answer of the doctor: the codes of its findings, and the nodes that they name.

    Status 0 is no answer, which the command line finds as well: ApiDown or ApiFrozen.
    """

    instance: int
    at: float
    status: int
    codes: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()


class Leadership(msgspec.Struct, frozen=True):
    """Which node leads the log in the view of each node that answered, as "n1"; empty: none.

    ``connected`` are the nodes to which each instance has a connection.
    """

    at: float
    seen: dict[int, str]
    connected: dict[int, list[int]] = {}


class Outage(msgspec.Struct):
    """The test itself stopped or froze an instance; it cannot answer in this time."""

    instance: int
    since: float
    until: float | None = None


class UnexpectedEnd(msgspec.Struct, frozen=True):
    """An instance ended without a request; it was started again at once."""

    instance: int
    at: float
    exit_code: int
    last_line: str


class FaultRun(msgspec.Struct):
    """One fault: injected from ``began`` to ``struck``, healed at ``healed``.

    From ``cleared`` on all instances are ready and take writes, and no doctor names a fault; from
    ``settled`` on the nodes have caught up with each other as well; from ``unnamed`` on no instance
    names a node or a clock.

    ``nodes`` are those that it stops, freezes or cuts off. ``apart`` are the instances that cannot
    reach two nodes while it lasts; ``stranded`` are those that were connected to one of ``nodes``
    and can leave it. ``silent`` are nodes that the leader cannot hear while it lasts, ``behind``
    those that it hears and that lack entries, ``clocks`` instances whose clock is wrong. ``quorum``
    is false when no two nodes can agree. ``lag_s`` is by how much a node receives entries too late:
    where the majority needs it, every write waits for it. ``slack_s`` is by how much this machine
    was late itself.
    """

    name: str
    began: float
    healed: float = 0.0
    cleared: float = 0.0
    settled: float = 0.0
    struck: float = 0.0
    unnamed: float = 0.0
    nodes: tuple[int, ...] = ()
    apart: tuple[int, ...] = ()
    stranded: tuple[int, ...] = ()
    silent: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()
    clocks: tuple[int, ...] = ()
    quorum: bool = True
    lag_s: float = 0.0
    slack_s: float = 0.0
    claims_won: int = 0
    claims_lost: int = 0


class Views(msgspec.Struct):
    """The read models of one instance at the end, by key."""

    instance: int
    plans: dict[str, Json] = {}
    tasks: dict[TaskName, Json] = {}
    executions: dict[tuple[str, str, int], Json] = {}


class History(msgspec.Struct):
    """A whole run."""

    calls: list[Call] = []
    readings: list[Reading] = []
    readiness: list[Readiness] = []
    diagnoses: list[Diagnosis] = []
    leaderships: list[Leadership] = []
    outages: list[Outage] = []
    ends: list[UnexpectedEnd] = []
    answered_hang_ups: set[str] = set()  # the owners whose answer had come before they hung up
    faults: list[FaultRun] = []
    views: list[Views] = []
    facts: list[Fact] = []
    output: Mapping[int, str] = {}  # what each instance printed
    claims_won: int = 0
    claims_lost: int = 0
    calm_slack_s: float = 0.0  # by how much this machine was late before, between and after faults

    def led_again_s(self, fault: FaultRun) -> float | None:
        """Seconds from a fault's beginning until all other nodes agree on one of them as leader.

        An election is the log's own affair: it takes 4 to 9 s, and no instance can shorten it.
        """
        others = set(NUMBERS).difference(fault.nodes)
        for leadership in self.leaderships:
            leaders = {leadership.seen.get(node, "") for node in others}
            agreed = len(leaders) == 1 and leaders <= {f"n{node}" for node in others}
            if fault.began <= leadership.at <= fault.settled and agreed:
                return leadership.at - fault.began
        return None

    def leaderless_until(self, fault: FaultRun, since: float, until: float) -> float:
        """When a node led again for the last time from ``since`` to ``until``.

        ``since`` if one led all the time, ``until`` if none does in the end.
        A node leads when it names itself and another node agrees, unless the fault strikes it. An
        old leader that comes back may bring about a second election.
        """
        led_at, was_led = since, True
        for leadership in self.leaderships:
            if not since <= leadership.at <= until:
                continue
            struck = fault.nodes if fault.began <= leadership.at <= fault.healed else ()
            leads = any(
                leadership.seen.get(node) == f"n{node}"
                and list(leadership.seen.values()).count(f"n{node}") > 1
                for node in set(NUMBERS).difference(struck)
            )
            if leads and not was_led:
                led_at = leadership.at
            was_led = leads
        return led_at if was_led else until

    def slack_s(self, since: float, until: float) -> float:
        """By how much the machine was late then: in these faults, or between any two of them."""
        lasted = [
            fault.slack_s for fault in self.faults if since < fault.settled and fault.began < until
        ]
        return max(lasted, default=self.calm_slack_s)

    def outages_of(self, instance: int) -> Iterable[Outage]:
        """The times in which this instance could not answer."""
        return (outage for outage in self.outages if outage.instance == instance)


class Violation(msgspec.Struct, frozen=True):
    """A sentence that should hold, and what shows that it does not."""

    sentence: str
    evidence: str
    at: float = 0.0
