"""What event readers must be sent: every fact after their cursor, once, in order, and no gap."""

from collections.abc import Iterator

from tests.cluster.fold import Fold
from tests.cluster.record import History, Reading, Violation

HEARTBEAT = "task.heartbeat"  # left out unless a reader asks for them

GAP = "no reader gets a gap while nothing is gone"
REPETITION = "no reader is sent anything twice or out of order"
HOLE = "no reader misses a fact, whichever instance it reads from"


def gaps(history: History, fold: Fold) -> Iterator[Violation]:
    """See `GAP`."""
    del fold
    for reading in history.readings:
        for gap in reading.gaps:
            yield Violation(GAP, f"{reading.name}: {gap}")


def repetitions(history: History, fold: Fold) -> Iterator[Violation]:
    """See `REPETITION`; the reader's own complaints count as well."""
    del fold
    for reading in history.readings:
        for fault in reading.faults:
            yield Violation(REPETITION, f"{reading.name}: {fault}")
        newest = reading.start
        for sequence in reading.sequences:
            if sequence <= newest:
                yield Violation(REPETITION, f"{reading.name}: {sequence} after {newest}")
            newest = max(newest, sequence)


def holes(history: History, fold: Fold) -> Iterator[Violation]:
    """See `HOLE`; every reader reads to the end of the log when the faults are over."""
    del fold
    shown = [fact.sequence for fact in history.facts if fact.type != HEARTBEAT]
    head = max((fact.sequence for fact in history.facts), default=0)
    for reading in history.readings:
        yield from _holes_of(reading, shown, head)


def _holes_of(reading: Reading, shown: list[int], head: int) -> Iterator[Violation]:
    if reading.start < 0:
        yield Violation(HOLE, f"{reading.name} was never sent anything")
        return
    missed = sorted(
        {sequence for sequence in shown if sequence > reading.start} - set(reading.sequences)
    )
    if missed:
        yield Violation(HOLE, f"{reading.name}: {len(missed)} are missing, e.g. {missed[:5]}")
    # What daemons write after the log was read is sent as well.
    strange = {each for each in reading.sequences if each <= head}.difference(shown)
    if strange:
        yield Violation(HOLE, f"{reading.name} was sent {sorted(strange)[:5]}, not in the log")
