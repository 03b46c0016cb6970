"""The checker can fail: each of its sentences is broken once in a run that is otherwise sound."""

import copy

import pytest

from tests.cluster import checker
from tests.cluster.checks import answers, health, notices, state, streams
from tests.cluster.plants import PLANTS, Plant, named, not_ready, silent
from tests.cluster.ports import NUMBERS
from tests.cluster.record import (
    History,
    Leadership,
    Outage,
)
from tests.cluster.sound_run import call, sound_run


def sentences(history: History) -> set[str]:
    return {found.sentence for found in checker.violations(history)}


def test_a_sound_run_shows_no_violation() -> None:
    assert checker.violations(sound_run()) == []


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
