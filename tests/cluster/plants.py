"""Plants, each of which breaks one sentence of the checker in a sound run."""

from collections.abc import Callable
from typing import Any

import msgspec

from tests.cluster.checks import answers, health, notices, state, streams
from tests.cluster.ports import NUMBERS
from tests.cluster.record import (
    Diagnosis,
    Fact,
    History,
    Leadership,
    Reading,
    UnexpectedEnd,
)
from tests.cluster.sound_run import BEGAN, LEASE, NAMED, WARNINGS


def changed(history: History, place: int, **given: Any) -> None:
    history.calls[place] = msgspec.structs.replace(history.calls[place], **given)


def silent(history: History, instance: int, since: float, until: float) -> None:
    """No write of this instance is acknowledged in this time."""
    history.calls = [
        each
        for each in history.calls
        if each.instance != instance or not since < each.answered_at < until
    ]


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
