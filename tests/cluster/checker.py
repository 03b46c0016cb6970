"""Holds a recorded run against every sentence that must be true of it."""

from collections import Counter
from collections.abc import Callable, Iterator

from tests.cluster.checks import answers, health, notices, state, streams
from tests.cluster.fold import Fold
from tests.cluster.record import History, Violation

SHOWN = 8  # of each sentence

Check = Callable[[History, Fold], Iterator[Violation]]

CHECKS: tuple[Check, ...] = (
    answers.acknowledged,
    answers.true_holder,
    answers.operators,
    answers.known,
    answers.no_error,
    answers.in_time,
    streams.gaps,
    streams.repetitions,
    streams.holes,
    state.sound,
    state.equal,
    state.folded,
    state.hang_ups_released,
    state.races,
    state.lasting,
    state.discreet,
    health.bounded,
    health.calm,
    health.readiness,
    health.doctor,
    health.cleared,
    notices.nodes,
    notices.clocks,
    notices.unnamed,
)


def violations(history: History) -> list[Violation]:
    """Everything that should not be, by sentence."""
    fold = Fold(history.facts)
    return [found for check in CHECKS for found in check(history, fold)]


def told(found: list[Violation], history: History) -> str:
    """The violations for a reader: how many of each, the first few, and during which fault."""
    lines: list[str] = []
    for sentence, count in Counter(each.sentence for each in found).items():
        lines.append(f"{count} x not so: {sentence}")
        examples = [each for each in found if each.sentence == sentence][:SHOWN]
        lines += [f"    [{_when(each, history)}] {each.evidence}" for each in examples]
    return "\n".join(lines)


def _when(violation: Violation, history: History) -> str:
    if not violation.at:
        return "whole run"
    for fault in history.faults:
        if fault.began <= violation.at <= fault.settled:
            return f"{fault.name} +{violation.at - fault.began:.1f} s"
    return "calm"
