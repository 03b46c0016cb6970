"""The rows of what the fold has changed, until they are written.

The projector folds batches of facts, has the rows of the changed plans made with `Pending.add_all`,
says with `Pending.advance` how far it is, and now and then calls `Pending.flush`. A newer row
replaces an older one, so a slow SQLite costs memory for the rows that differ, not for the facts.
"""

import asyncio
from collections.abc import Iterable, Sequence

from projections.log_identity import Witness
from projections.read_models import checkpoints, executions, forgetting, outputs, plans, tasks
from projections.read_models.bulk import Call, Changes
from projections.read_models.database import Database, ReadModelCheckpoint
from projections.read_models.made_rows import MadeRows
from streams.plan.fold import Tombstone
from streams.plan.state import Plan

STREAM = "PLANS"
WIDE = 500  # tasks of one plan that changed or were renewed; more rows would hold the loop for ms


class Pending:
    """Rows that differ from those in SQLite, with the sequence up to which facts are in them."""

    def __init__(self, sequence: int, epoch: str, witness: Witness | None = None) -> None:
        """Go on from a checkpoint (sequence 0: from nothing)."""
        self._sequence = sequence
        self._witness = self.flushed_witness = witness
        self._epoch = epoch
        self._flushed = sequence
        self._under_way_bytes = 0
        self._plans = Changes(plans.UPDATE, plans.INSERT)
        self._plan_specs = Changes(plans.INSERT_SPEC, large=("spec",))
        self._labels = Changes(plans.INSERT_LABEL)
        self._tasks = Changes(tasks.UPDATE, tasks.INSERT, large=("result", "feedback", "output"))
        self._renewals = Changes(tasks.RENEW)  # written after `_tasks`; older ones change nothing
        self._task_specs = Changes(tasks.INSERT_SPEC, large=("spec", "input"))
        self._outputs = Changes(outputs.INSERT, large=("output",))
        self._checkpoints = Changes(checkpoints.UPSERT, large=("value",))
        self._executions = Changes(executions.UPSERT, large=("error_message",))
        self._forgotten: dict[str, Tombstone] = {}
        self._tables = (
            self._plan_specs, self._plans, self._labels, self._task_specs,
            self._tasks, self._renewals, self._outputs, self._checkpoints, self._executions,
        )  # fmt: skip

    def __len__(self) -> int:
        """How many rows wait."""
        counted = (
            self._plans, self._tasks, self._renewals, self._checkpoints, self._executions,
        )  # fmt: skip
        return sum([len(table.changing) for table in counted]) + len(self._forgotten)

    @property
    def size_bytes(self) -> int:
        """About how much memory they take, with those that are being written."""
        return self._under_way_bytes + sum([table.size_bytes for table in self._tables])

    @property
    def sequence(self) -> int:
        """Up to where facts have been taken in."""
        return self._sequence

    @property
    def flushed(self) -> int:
        """Up to where facts are in SQLite."""
        return self._flushed

    def add(self, *changed: Plan) -> None:
        """Take in what changed in these plans since the last `advance`, and drain them."""
        self._merge(self._made(changed))

    async def add_all(self, changed: Sequence[Plan]) -> None:
        """`add` all; the rows of those that changed widely are made in a thread.

        No fold may change the plans meanwhile. All rows are added in one step, after the thread.
        """
        wide = [plan for plan in changed if _is_wide(plan)]
        others = [plan for plan in changed if not _is_wide(plan)] if wide else changed
        if wide:
            self._merge(await asyncio.to_thread(self._made, wide))
        self.add(*others)

    def _made(self, changed: Iterable[Plan]) -> MadeRows:
        made = MadeRows(self._sequence)
        for plan in changed:
            made.add(plan)
        return made

    def _merge(self, made: MadeRows) -> None:
        self._plans.merge(made.plans, made.new_plans)
        self._plan_specs.merge(made.plan_specs)
        self._labels.merge(made.labels)
        self._tasks.merge(made.tasks, made.new_tasks)
        self._renewals.merge(made.renewals)
        self._task_specs.merge(made.task_specs)
        self._outputs.merge(made.outputs)
        self._checkpoints.merge(made.checkpoints)
        self._executions.merge(made.executions)

    def forget(self, forgotten: dict[str, Tombstone]) -> None:
        """Have the rows of plans removed that were submitted before their tombstones, by id."""
        self._forgotten.update(forgotten)

    def advance(self, sequence: int, witness: Witness | None = None) -> None:
        """Every plan that changed by facts up to ``sequence`` has been added.

        ``witness`` is the newest of them that stays in the log, if there is one.
        """
        self._sequence = sequence
        self._witness = witness or self._witness

    async def flush(self, database: Database) -> int:
        """Write all rows and the checkpoint in one transaction; answers the sequence reached.

        Rows may be added meanwhile; they belong to the next flush. Raises DatabaseUnavailable:
        then nothing was written and nothing is lost, and the flush may be tried again. One flush
        at a time. Only call between `advance` and the next `add`.
        """
        sequence, witness = self._sequence, self._witness
        checkpoint = ReadModelCheckpoint(STREAM, sequence, self._epoch, witness)
        any_dropped = [checkpoints.REMOVE_DROPPED] if len(self._checkpoints) else []
        taken = [table.cut() for table in self._tables]
        forgotten, self._forgotten = self._forgotten, {}
        self._under_way_bytes = sum(table.size_bytes for table in taken)
        try:
            # Removed last: rows of a plan that is forgotten may have been written just before.
            removed = forgetting.calls(list(forgotten.values()))
            await database.write(_calls(taken) + any_dropped + removed, checkpoint)
        except BaseException:
            for table, rows in zip(self._tables, taken, strict=True):
                table.put_back(rows)
            self._forgotten = forgotten | self._forgotten
            raise
        finally:
            self._under_way_bytes = 0
        self._flushed, self.flushed_witness = sequence, witness
        return sequence


def _calls(tables: list[Changes]) -> list[Call]:
    return [call for table in tables for call in table.calls()]


def _is_wide(plan: Plan) -> bool:
    return len(plan.touched) + len(plan.renewed) > WIDE
