"""The rows of what the fold has changed, until they are written.

The projector folds a batch of facts, shows each changed plan to `Pending.add`, says with
`Pending.advance` how far it is, and now and then calls `Pending.flush`. Rows are built at once,
while they are true; a newer row replaces an older one, so a slow SQLite costs memory for the rows
that differ, not for the facts.
"""

import asyncio
from collections.abc import Iterable, Sequence

from projections.log_identity import Witness
from projections.read_models import checkpoints, executions, forgetting, outputs, plans, tasks
from projections.read_models.bulk import Call, Changes
from projections.read_models.database import Database, ReadModelCheckpoint
from streams.plan.fold import Tombstone
from streams.plan.state import Execution, Plan, Task

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
        return sum(len(table) for table in counted) + len(self._forgotten)

    @property
    def size_bytes(self) -> int:
        """About how much memory they take, with those that are being written."""
        return self._under_way_bytes + sum(table.size_bytes for table in self._tables)

    @property
    def sequence(self) -> int:
        """Up to where facts have been taken in."""
        return self._sequence

    @property
    def flushed(self) -> int:
        """Up to where facts are in SQLite."""
        return self._flushed

    def add(self, plan: Plan) -> None:
        """Take in what changed in ``plan`` since the last `advance`, and drain it."""
        touched, renewed, closed, large, kept = plan.drain()
        since, first_sequence = self._sequence, plan.first_sequence
        is_new = first_sequence > since
        self._plans.put(first_sequence, plans.changing_row(plan))
        if is_new:
            self._add_new(plan)
        for task in touched.values():
            self._tasks.put(task.ordinal, tasks.changing_row(task))
            self._add_execution(task, task.execution)
        for task_id, task in renewed.items():
            if task_id not in touched:
                self._renewals.put(task.ordinal, tasks.renewed_row(task))
                self._add_execution(task, task.execution)
        for sequence, ordinal, output in large:
            if sequence > since:
                self._outputs.put(sequence, (sequence, ordinal, bytes(output)))
        for each in kept:
            self._checkpoints.put(each[:2], checkpoints.row_of(each))
        for task_id, execution in closed:
            self._add_execution(plan.tasks[task_id], execution)

    def _add_execution(self, task: Task, execution: Execution | None) -> None:
        # Heartbeats change the task and not its execution, whose row is then still good.
        if execution is not None and execution.sequence > self._sequence:
            row = executions.changing_row(task.ordinal, execution)
            self._executions.put(execution.claimed_sequence, row)

    async def add_all(self, changed: Sequence[Plan]) -> None:
        """`add` each plan; the rows of those that changed widely are made in a thread.

        No fold may change the plans meanwhile. All rows are added in one step, after the thread.
        """
        # By identity: to compare two large plans field by field would take longer than their rows.
        wide = {id(plan): plan for plan in changed if len(plan.touched) + len(plan.renewed) > WIDE}
        if not wide:
            self._add_each(changed)
            return
        apart = Pending(self._sequence, self._epoch)
        await asyncio.to_thread(apart._add_each, list(wide.values()))
        self._add_each([plan for plan in changed if id(plan) not in wide])
        for mine, theirs in zip(self._tables, apart._tables, strict=True):
            mine.merge(theirs)

    def _add_each(self, changed: Iterable[Plan]) -> None:
        for plan in changed:
            self.add(plan)

    def _add_new(self, plan: Plan) -> None:
        first_sequence = plan.first_sequence
        self._plans.fixed[first_sequence] = plans.fixed_row(plan)
        self._plan_specs.put(first_sequence, plans.spec_row(plan))
        for row in plans.label_rows(plan):
            self._labels.put(row, row)
        fixed, specs = self._tasks.fixed, self._task_specs
        for task in plan.tasks.values():
            fixed[task.ordinal] = tasks.fixed_row(first_sequence, task)
            specs.put(task.ordinal, tasks.spec_row(task))

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
