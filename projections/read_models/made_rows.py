"""Makes the rows of plans that have changed, by table and key: at once, while they are true."""

from typing import Any

from projections.read_models import checkpoints, executions, plans, tasks
from projections.read_models.bulk import Row
from streams.plan.state import Plan

ByKey = dict[Any, Row]


class MadeRows:
    """Rows of plans that changed by facts after ``since``; `Pending` takes them in."""

    def __init__(self, since: int) -> None:
        self._since = since
        self.plans, self.new_plans, self.plan_specs = ByKey(), ByKey(), ByKey()
        self.tasks, self.new_tasks, self.task_specs = ByKey(), ByKey(), ByKey()
        self.labels, self.renewals, self.outputs = ByKey(), ByKey(), ByKey()
        self.checkpoints, self.executions = ByKey(), ByKey()

    def add(self, plan: Plan) -> None:
        """Make the rows of what changed in ``plan``, and drain it."""
        touched, renewed, closed, large, kept = plan.drain()
        since = self._since
        self.plans[plan.first_sequence] = plans.changing_row(plan)
        if plan.first_sequence > since:
            self._add_new(plan)
        for task in touched.values():
            self.tasks[task.ordinal] = tasks.changing_row(task)
        for task_id, task in renewed.items():
            if task_id not in touched:
                self.renewals[task.ordinal] = tasks.renewed_row(task)
        for sequence, ordinal, output in large:
            if sequence > since:
                self.outputs[sequence] = (sequence, ordinal, bytes(output))
        for each in kept:
            self.checkpoints[each[:2]] = checkpoints.row_of(each)
        attempts = [(task.ordinal, task.execution) for task in (renewed | touched).values()]
        attempts += [(plan.tasks[task_id].ordinal, execution) for task_id, execution in closed]
        for ordinal, execution in attempts:
            # Heartbeats change the task and not its execution, whose row is then still good.
            if execution is not None and execution.sequence > since:
                row = executions.changing_row(ordinal, execution)
                self.executions[execution.claimed_sequence] = row

    def _add_new(self, plan: Plan) -> None:
        first_sequence = plan.first_sequence
        self.new_plans[first_sequence] = plans.fixed_row(plan)
        self.plan_specs[first_sequence] = plans.spec_row(plan)
        for row in plans.label_rows(plan):
            self.labels[row] = row
        for task in plan.tasks.values():
            self.new_tasks[task.ordinal] = tasks.fixed_row(first_sequence, task)
            self.task_specs[task.ordinal] = tasks.spec_row(task)
