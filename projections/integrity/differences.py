"""Compares rows of the read models with the rows that the log leads to, table by table.

Heartbeats and progress leave the log after a day (DESIGN §3). A row whose newest fact was one of
them still names its sequence, which a fold of today's log cannot know. So a column that such a
message may have set is no difference where the message is gone from the log.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from projections.read_models import checkpoints, executions, outputs, plans, tasks
from projections.read_models.bulk import Row
from streams.plan.state import ORDINALS_PER_PLAN
from streams.texts import shortened

_LONGEST_VALUE = 200

IsGone = Callable[[int], bool]
"""Whether the log has no message at this sequence any more."""


class Table(msgspec.Struct, frozen=True):
    """What of a table is compared: its columns, the key first; ``of_plan`` picks one plan's rows.

    ``newest`` is the column with the sequence of the last message on the row's subject, and
    ``chatter`` are columns that a heartbeat or progress may have set; ``running`` are those that
    any later fact sets anew, so a heartbeat shows in them only while it is the row's last fact.
    """

    columns: tuple[str, ...]
    key_width: int
    of_plan: str
    newest: str = ""
    chatter: frozenset[str] = frozenset()
    running: frozenset[str] = frozenset()

    @property
    def key(self) -> str:
        """The columns of the key as SQL."""
        return ", ".join(self.columns[: self.key_width])


def _ordinals(column: str) -> str:
    width = ORDINALS_PER_PLAN
    return f"{column} >= :first * {width} AND {column} < (:first + 1) * {width}"


_FIRST = "first_sequence = :first"
TABLES: Mapping[str, Table] = {
    "plans": Table((*plans.FIXED, *plans.CHANGING), 1, _FIRST, "sequence", frozenset({"sequence"})),
    "plan_specs": Table(("first_sequence", "spec"), 1, _FIRST),
    "plan_labels": Table(("label", "first_sequence"), 2, _FIRST),
    "tasks": Table(
        (*tasks.FIXED, *tasks.CHANGING),
        1,
        _ordinals("ordinal"),
        "subject_sequence",
        frozenset({"subject_sequence", "lease_s"}),
        frozenset({"sequence", "updated_at", "lease_until", "reported"}),
    ),
    "task_specs": Table(tasks.SPEC, 1, _ordinals("ordinal")),
    "outputs": Table(outputs.NAMES, 1, _ordinals("ordinal")),
    "checkpoints": Table(checkpoints.NAMES, 2, _ordinals("ordinal")),
    "executions": Table(executions.NAMES, 1, _ordinals("task_ordinal")),
}
"""Every table whose rows follow from the log PLANS alone; the one list of what is compared."""


class Difference(msgspec.Struct, frozen=True):
    """One column of one row that differs; ``str`` of it is a readable line.

    ``column`` is None for a row that only one side has; the other side's value is then None.
    """

    table: str
    key: Row
    column: str | None
    live: str | None
    rebuilt: str | None

    def __str__(self) -> str:
        """One line for an operator."""
        row = f"{self.table} {'/'.join(map(str, self.key))}"
        if self.column is None:
            return f"{row}: only in the {'live' if self.rebuilt is None else 'rebuilt'} file"
        return f"{row}: {self.column} is {self.live} live, {self.rebuilt} rebuilt"


class Pair(msgspec.Struct, frozen=True):
    """The two rows of one key, None where a side has none."""

    table: str
    live: Row | None
    rebuilt: Row | None

    @property
    def chatter_at(self) -> int | None:
        """The sequence of the live row's newest message, if the rebuilt row does not know it."""
        table = TABLES[self.table]
        if self.live is None or self.rebuilt is None or not table.newest:
            return None
        place = table.columns.index(table.newest)
        newest: int = self.live[place]
        return newest if newest > self.rebuilt[place] else None

    def differences(self, is_gone: IsGone) -> Iterator[Difference]:
        """What differs and is not explained by a message that has left the log."""
        live, rebuilt, table = self.live, self.rebuilt, TABLES[self.table]
        if live == rebuilt:
            return
        key = (live or rebuilt or ())[: table.key_width]
        if live is None or rebuilt is None:
            there = [None if row is None else "there" for row in (live, rebuilt)]
            yield Difference(self.table, key, None, *there)
            return
        excused = self._set_by_chatter(live, is_gone)
        for column, ours, theirs in zip(table.columns, live, rebuilt, strict=True):
            if ours != theirs and column not in excused:
                yield Difference(self.table, key, column, _shown(ours), _shown(theirs))

    def _set_by_chatter(self, live: Row, is_gone: IsGone) -> frozenset[str]:
        """The columns that a message may have set which has left the log."""
        table, at = TABLES[self.table], self.chatter_at
        if at is None or not is_gone(at):
            return frozenset()
        is_last = live[table.columns.index("sequence")] == at
        return table.chatter | table.running if is_last else table.chatter


def pairs(table: str, live: Iterable[Row], rebuilt: Iterable[Row]) -> Iterator[Pair]:
    """Both sides' rows, each in the order of the key; memory does not grow with them."""
    width, lefts, rights = TABLES[table].key_width, iter(live), iter(rebuilt)
    left, right = next(lefts, None), next(rights, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left[:width] < right[:width]):
            yield Pair(table, left, None)
            left = next(lefts, None)
        elif left is None or right[:width] < left[:width]:
            yield Pair(table, None, right)
            right = next(rights, None)
        else:
            yield Pair(table, left, right)
            left, right = next(lefts, None), next(rights, None)


def _shown(value: object) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else repr(value)
    return shortened(text, _LONGEST_VALUE)
