"""A run of the campaign in which everything holds, written by hand."""

import copy
from typing import Any

from tests.cluster.ports import NUMBERS
from tests.cluster.record import (
    Call,
    Diagnosis,
    Fact,
    FaultRun,
    History,
    Readiness,
    Reading,
    Views,
)
from tests.cluster.watch import canary

BEGAN = 1000.0  # a fact at sequence n is written n seconds later
FAULT = (1100.0, 1115.0, 1117.0, 1120.0)
LOSS = FaultRun(
    "node and clock", 1130.0, 1142.0, 1143.0, 1144.0, 1130.5, 1146.0, silent=(3,), clocks=(2,)
)
NAMED = (1132.5, 1142.0)  # when every instance names the node, and the second one its clock
WARNINGS = {"replicas": "the leader of PLANS has not heard n3 for 4 s", "clock": "600.0 s ahead"}
RUN_S = 150
LEASE = {"owner": "w", "attempt": 1}
HUNG_UP = {"owner": "gone-1", "attempt": 1}
TASK = {"id": "t", "kind": "outside"}

_LOG: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("p", "", "plan.submitted", {"tasks": [TASK]}),
    ("p", "t", "task.claimed", {**LEASE, "lease_s": 8}),
    ("p", "t", "task.started", LEASE),
    ("p", "t", "task.completed", LEASE),
    ("p", "", "plan.finished", {"status": "COMPLETED"}),
    ("o", "", "plan.submitted", {"tasks": [TASK]}),
    ("o", "", "plan.paused", {}),
    ("o", "", "plan.resumed", {}),
    ("o", "", "plan.cancelled", {}),
    ("h", "", "plan.submitted", {"tasks": [TASK]}),
    ("h", "t", "task.claimed", {**HUNG_UP, "lease_s": 30}),
    ("h", "t", "task.released", HUNG_UP),
    ("q", "", "plan.submitted", {"tasks": [TASK]}),
    ("q", "t", "task.claimed", {**LEASE, "lease_s": 8}),
    ("q", "t", "task.heartbeat", {**LEASE, "lease_s": 8}),
)


def call(verb: str, sequence: int, **given: Any) -> Call:
    """A call that was answered when its fact had just been written."""
    at = BEGAN + sequence
    defaults: dict[str, Any] = {
        "instance": 1, "asked_at": at - 0.5, "answered_at": at + 0.1, "limit_s": 15.0,
        "status": 200, "sequence": sequence,
    }  # fmt: skip
    return Call(verb=verb, **defaults | given)


def sound_run() -> History:
    """A run in which everything holds."""
    whose = {"plan_id": "p", "task_id": "t", "said": "accepted", **LEASE}
    history = History(
        facts=[
            Fact(n, BEGAN + n, plan_id, task_id, type_, data)
            for n, (plan_id, task_id, type_, data) in enumerate(_LOG, 1)
        ],
        calls=[
            call("submit", 1, plan_id="p", status=201),
            call("claim", 2, **whose),
            call("start", 3, **whose),
            call("complete", 4, **whose),
            call("complete", 4, **{**whose, "said": "duplicate"}, instance=2),
            call("start", 5, **whose, status=409, code="guard_reject"),  # the lease had ended
            call("submit", 6, plan_id="o", status=201),
            call("pause", 7, plan_id="o", said="PAUSED"),
            call("resume", 8, plan_id="o", said="READY"),
            call("cancel", 9, plan_id="o", said="CANCELLED"),
            call("claim", 14, **{**whose, "plan_id": "q"}),
            call("heartbeat", 15, **{**whose, "plan_id": "q"}),
        ],
        faults=[FaultRun("leader cut off", *FAULT), copy.copy(LOSS)],
        readings=[Reading("reader-0", 3, list(range(4, 15)))],
        output=dict.fromkeys(NUMBERS, '{"event": "ready"}'),
        claims_won=200,
        claims_lost=5,
    )
    for number in NUMBERS:
        history.calls += [canary_write(number, BEGAN + half / 2) for half in range(2 * RUN_S)]
        history.readiness += [ready(number, BEGAN + n) for n in range(RUN_S)]
        history.diagnoses += [diagnosis(number, BEGAN + n) for n in range(RUN_S)]
        history.views.append(views(number))
    add_canary_facts(history)
    return history


def ready(number: int, at: float) -> Readiness:
    """An instance that can work, and names the node that is silent and its own clock meanwhile."""
    named = NAMED[0] <= at <= NAMED[1]
    own = WARNINGS if number in LOSS.clocks else {"replicas": WARNINGS["replicas"]}
    return Readiness(number, at, 200, warnings=own if named else {})


def diagnosis(number: int, at: float) -> Diagnosis:
    """What the doctor of such an instance says."""
    if not NAMED[0] <= at <= NAMED[1]:
        return Diagnosis(number, at, 200)
    own = ("ClocksDiffer",) if number in LOSS.clocks else ()
    return Diagnosis(number, at, 200, ("ReplicaBehind", *own), ("n3",))


def canary_write(instance: int, at: float) -> Call:
    """An acknowledged write; what it acknowledges stands in `add_canary_facts`."""
    plan_id = f"{canary(instance)}0"
    return call("pause", 0, instance=instance, plan_id=plan_id, said="PAUSED",
                asked_at=at - 0.1, answered_at=at)  # fmt: skip


def add_canary_facts(history: History) -> None:
    """Before the log's other facts, as the canary plans are submitted first."""
    for number in NUMBERS:
        for back, (type_, data) in enumerate(
            [("plan.paused", {}), ("plan.submitted", {"tasks": []})]
        ):
            sequence = -10 * number - back
            fact = Fact(sequence, BEGAN - 20 - back, f"{canary(number)}0", "", type_, data)
            history.facts.insert(0, fact)


def views(instance: int) -> Views:
    """What the log folds to."""
    rows = {
        ("p", "t"): {"status": "COMPLETED", "attempt": 1, "owner": None},
        ("o", "t"): {"status": "CANCELLED", "attempt": 0, "owner": None},
        ("h", "t"): {"status": "READY", "attempt": 1, "owner": None},
        ("q", "t"): {"status": "RUNNING", "attempt": 1, "owner": "w"},
    }
    return Views(instance, plans={"p": {"status": "COMPLETED"}}, tasks=rows)
