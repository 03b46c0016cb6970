"""The checker can fail: each of its sentences is broken once in a run that is otherwise sound."""

import copy
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.cluster import checker
from tests.cluster.checks import answers, health, notices, state, streams
from tests.cluster.ports import NUMBERS
from tests.cluster.record import (
    Call,
    Diagnosis,
    Fact,
    FaultRun,
    History,
    Leadership,
    Outage,
    Readiness,
    Reading,
    UnexpectedEnd,
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


def changed(history: History, place: int, **given: Any) -> None:
    history.calls[place] = msgspec.structs.replace(history.calls[place], **given)


def silent(history: History, instance: int, since: float, until: float) -> None:
    """No write of this instance is acknowledged in this time."""
    history.calls = [
        each
        for each in history.calls
        if each.instance != instance or not since < each.answered_at < until
    ]


def sentences(history: History) -> set[str]:
    return {found.sentence for found in checker.violations(history)}


def test_a_sound_run_shows_no_violation() -> None:
    assert checker.violations(sound_run()) == []


# -- each plant breaks one sentence ----------------------------------------------------------------


def lost(history: History) -> None:
    changed(history, 3, sequence=99)


def elsewhere(history: History) -> None:
    changed(history, 2, sequence=4)


def of_another_attempt(history: History) -> None:
    changed(history, 1, attempt=2)


def duplicate_of_nothing(history: History) -> None:
    changed(history, 4, plan_id="q", said="duplicate")


def resume_without_effect(history: History) -> None:
    del history.facts[-8]  # the resume
    changed(history, 8, said="READY")


def resume_answered_paused(history: History) -> None:
    changed(history, 8, said="PAUSED")


def refused_holder(history: History) -> None:
    changed(history, 11, status=409, code="guard_reject")


def refused_before_the_end(history: History) -> None:
    changed(history, 2, status=409, code="guard_reject")


def refused_repetition(history: History) -> None:
    changed(history, 4, status=409, code="guard_reject")


def refused_resume(history: History) -> None:
    changed(history, 8, status=409, code="not_allowed")


def unknown_plan(history: History) -> None:
    changed(history, 7, status=404, code="not_found")


def server_error(history: History) -> None:
    changed(history, 3, status=500)


def refusal_that_is_no_problem(history: History) -> None:
    changed(history, 5, status=503, is_problem=False)


def late_answer(history: History) -> None:
    changed(history, 3, asked_at=BEGAN - 16)


def no_answer(history: History) -> None:
    changed(history, 5, status=0)


def gap(history: History) -> None:
    history.readings[0].gaps.append("{'reason': 'ahead_of_log'}")


def repetition(history: History) -> None:
    history.readings[0].sequences.insert(3, 4)


def hole(history: History) -> None:
    history.readings[0].sequences.remove(9)


def unknown_event(history: History) -> None:
    history.facts = [fact for fact in history.facts if fact.sequence != 9]


def silent_reader(history: History) -> None:
    history.readings[0] = Reading("reader-0", -1)


def early_reclaim(history: History) -> None:
    data = {"owner": "thief", "attempt": 2, "lease_s": 8}
    history.facts.append(Fact(16, BEGAN + 16, "q", "t", "task.claimed", data))


def second_completion(history: History) -> None:
    history.facts.append(Fact(16, BEGAN + 16, "p", "t", "task.completed", LEASE))


def second_end(history: History) -> None:
    history.facts.append(Fact(16, BEGAN + 16, "p", "", "plan.finished", {}))


def different_rows(history: History) -> None:
    history.views[2].plans["p"] = {"status": "RUNNING"}


def missing_row(history: History) -> None:
    history.views[1].plans.clear()


def same_wrong_rows(history: History) -> None:
    for view in history.views:
        view.tasks["p", "t"] = {"status": "RUNNING", "attempt": 1, "owner": "w"}


def lease_of_nobody(history: History) -> None:
    history.facts = [fact for fact in history.facts if fact.type != "task.released"]


def lost_races(history: History) -> None:
    history.claims_lost = 50


def spinning(history: History) -> None:
    history.faults[0].claims_lost = 3_359
    history.claims_lost += 3_359


def unexpected_end(history: History) -> None:
    history.ends.append(UnexpectedEnd(2, 1101, 1, "the log is another one"))


def leaked_secret(history: History) -> None:
    history.output = {1: f"headers: {state.SECRET}"}


def traceback(history: History) -> None:
    history.output = {1: "Traceback (most recent call last):\n  File"}


def refused_for_long(history: History) -> None:
    silent(history, 1, 1101, 1110)
    not_ready(history, 1, 1101, 1110)


def refused_after_the_election(history: History) -> None:
    history.leaderships.append(Leadership(1106, dict.fromkeys(NUMBERS, "n2")))
    silent(history, 1, 1101, 1111)
    not_ready(history, 1, 1101, 1111)
    named(history, 1, 1105)


def refused_after_the_end(history: History) -> None:
    history.faults[0].apart = (1,)
    history.faults[0].settled = 1130
    silent(history, 1, 1101, 1125)
    not_ready(history, 1, 1101, 1125)
    named(history, 1, 1105)


def refused_without_quorum(history: History) -> None:
    history.faults[0].quorum = False
    history.faults[0].settled = 1140
    history.faults[0].healed = 1115
    silent(history, 1, 1101, 1137)
    not_ready(history, 1, 1101, 1137)
    named(history, 1, 1105)


def refused_in_calm(history: History) -> None:
    silent(history, 2, 1050, 1056)
    not_ready(history, 2, 1050, 1056)


def ready_without_writes(history: History) -> None:
    silent(history, 3, 1101, 1107)


def ready_again_too_early(history: History) -> None:
    history.faults[0].stranded = (3,)
    silent(history, 3, 1101, 1112)
    not_ready(history, 3, 1101, 1104)
    named(history, 3, 1105)


def doctor_silent(history: History) -> None:
    history.faults[0].stranded = (1,)
    silent(history, 1, 1101, 1115)
    not_ready(history, 1, 1101, 1115)


def not_cleared(history: History) -> None:
    history.faults[0].cleared = 1140


def not_ready(history: History, instance: int, since: float, until: float) -> None:
    history.readiness = [
        msgspec.structs.replace(each, status=503)
        if each.instance == instance and since <= each.at <= until
        else each
        for each in history.readiness
    ]


def named(history: History, instance: int, at: float) -> None:
    history.diagnoses.append(Diagnosis(instance, at, 200, ("LogUnavailable",)))


def ready_says(history: History, instance: int, until: float, warnings: dict[str, str]) -> None:
    """What its /readyz warns of until then is this."""
    history.readiness = [
        msgspec.structs.replace(each, warnings=warnings)
        if each.instance == instance and NAMED[0] <= each.at < until
        else each
        for each in history.readiness
    ]


def doctor_says(history: History, instance: int, *codes: str) -> None:
    """What its doctor finds is this, and no node."""
    history.diagnoses = [
        msgspec.structs.replace(each, codes=codes, nodes=())
        if each.instance == instance and NAMED[0] <= each.at
        else each
        for each in history.diagnoses
    ]


def node_named_late_by_readyz(history: History) -> None:
    ready_says(history, 1, 1136, {})


def another_node_named_by_readyz(history: History) -> None:
    other = {"replicas": WARNINGS["replicas"].replace("n3", "n2")}
    ready_says(history, 3, 1142, other)


def node_not_named_by_the_doctor(history: History) -> None:
    doctor_says(history, 1)


def clock_not_named_by_readyz(history: History) -> None:
    ready_says(history, 2, 1142, {"replicas": WARNINGS["replicas"]})


def clock_not_named_by_the_doctor(history: History) -> None:
    doctor_says(history, 2, "ReplicaBehind")


def node_named_when_it_is_well_again(history: History) -> None:
    history.faults[1].unnamed = 1156


Plant = Callable[[History], None]
PLANTS: tuple[tuple[Plant, str], ...] = (
    (lost, answers.ACKNOWLEDGED),
    (elsewhere, answers.ACKNOWLEDGED),
    (of_another_attempt, answers.ACKNOWLEDGED),
    (duplicate_of_nothing, answers.ACKNOWLEDGED),
    (resume_without_effect, answers.ACKNOWLEDGED),
    (resume_answered_paused, answers.ACKNOWLEDGED),
    (refused_holder, answers.TRUE_HOLDER),
    (refused_before_the_end, answers.TRUE_HOLDER),
    (refused_repetition, answers.TRUE_HOLDER),
    (refused_resume, answers.OPERATOR),
    (unknown_plan, answers.KNOWN),
    (server_error, answers.NO_ERROR),
    (refusal_that_is_no_problem, answers.NO_ERROR),
    (late_answer, answers.IN_TIME),
    (no_answer, answers.IN_TIME),
    (gap, streams.GAP),
    (repetition, streams.REPETITION),
    (hole, streams.HOLE),
    (unknown_event, streams.HOLE),
    (silent_reader, streams.HOLE),
    (early_reclaim, state.SOUND),
    (second_completion, state.SOUND),
    (second_end, state.SOUND),
    (different_rows, state.EQUAL),
    (missing_row, state.EQUAL),
    (same_wrong_rows, state.FOLDED),
    (lease_of_nobody, state.RELEASED),
    (lost_races, state.RACES),
    (spinning, state.RACES),
    (unexpected_end, state.LASTING),
    (leaked_secret, state.DISCREET),
    (traceback, state.DISCREET),
    (refused_for_long, health.BOUNDED),
    (refused_after_the_election, health.BOUNDED),
    (refused_after_the_end, health.BOUNDED),
    (refused_without_quorum, health.BOUNDED),
    (refused_in_calm, health.CALM),
    (ready_without_writes, health.READY_NAMES),
    (ready_again_too_early, health.READY_NAMES),
    (doctor_silent, health.DOCTOR_NAMES),
    (not_cleared, health.CLEARED),
    (node_named_late_by_readyz, notices.NODE_READY),
    (another_node_named_by_readyz, notices.NODE_READY),
    (node_not_named_by_the_doctor, notices.NODE_DOCTOR),
    (clock_not_named_by_readyz, notices.CLOCK_READY),
    (clock_not_named_by_the_doctor, notices.CLOCK_DOCTOR),
    (node_named_when_it_is_well_again, notices.UNNAMED),
)


@pytest.mark.parametrize(("plant", "sentence"), PLANTS, ids=[each.__name__ for each, _ in PLANTS])
def test_each_planted_violation_is_found(plant: Plant, sentence: str) -> None:
    history = copy.deepcopy(sound_run())
    plant(history)
    assert sentence in sentences(history)


def test_every_sentence_is_broken_by_a_plant() -> None:
    modules = (answers, health, notices, state, streams)
    known = {
        value
        for module in modules
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str) and " " in value
    }
    assert known == {sentence for _, sentence in PLANTS}


def test_an_instance_that_the_test_stopped_need_not_answer() -> None:
    history = sound_run()
    history.outages.append(Outage(1, 1101, 1112))
    silent(history, 1, 1101, 1112)
    history.calls.append(call("read", 102, status=0, plan_id="p"))
    assert checker.violations(history) == []


def test_a_fact_that_was_written_after_the_log_was_read_may_be_sent() -> None:
    history = sound_run()
    history.readings[0].sequences.append(history.facts[-1].sequence + 1)
    assert checker.violations(history) == []


def test_a_long_election_is_not_held_against_the_instances() -> None:
    history = sound_run()
    history.faults[0].nodes = (1,)
    seen = [(1101.0, "n1"), (1105.0, ""), (1108.0, "n2")]
    history.leaderships = [Leadership(at, dict.fromkeys(NUMBERS, node)) for at, node in seen]
    silent(history, 2, 1101, 1110)
    not_ready(history, 2, 1101, 1110)
    assert checker.violations(history) == []


def test_a_second_election_when_the_old_leader_comes_back_is_not_held_against_them() -> None:
    history = sound_run()
    history.faults[0].nodes = (1,)
    history.faults[0].settled = 1130
    history.leaderships = [
        Leadership(1110, {1: "n1", 2: "n2", 3: "n2"}),
        Leadership(1116, {1: "", 2: "", 3: "n2"}),
        Leadership(1124, {1: "", 2: "", 3: ""}),
        Leadership(1125, dict.fromkeys(NUMBERS, "n2")),
    ]
    silent(history, 2, 1115, 1126)
    not_ready(history, 2, 1115, 1126)
    named(history, 2, 1120)
    assert checker.violations(history) == []


def test_a_stranded_instance_has_longer_to_leave_its_node() -> None:
    history = sound_run()
    history.faults[0].stranded = (1,)
    silent(history, 1, 1101, 1112)
    not_ready(history, 1, 1101, 1112)
    named(history, 1, 1105)
    assert checker.violations(history) == []
