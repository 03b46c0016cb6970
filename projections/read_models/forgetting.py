"""Removes the rows of forgotten plans from every table that holds rows of plans."""

from projections.read_models.bulk import Bulk, Call

# The plans' own rows come last: the others are found by them.
_BY_TASK = (("checkpoints", "ordinal"), ("outputs", "ordinal"), ("executions", "task_ordinal"))
_BY_PLAN = ("tasks", "plan_labels", "plan_specs", "plans")

# Rows of a later plan of the same id stay: it was submitted after the fact that forgot this one.
_GONE = """WITH v(plan_id, before) AS ({rows}), gone(first_sequence) AS (
SELECT p.first_sequence FROM v CROSS JOIN plans p
ON p.plan_id = v.plan_id AND p.first_sequence < v.before)
"""
_TASKS = """SELECT t.ordinal FROM gone CROSS JOIN tasks t
ON t.first_sequence = gone.first_sequence"""

_STATEMENTS = tuple(
    Bulk(("plan_id", "before"), _GONE + statement)
    for statement in (
        *(f"DELETE FROM {table} WHERE {key} IN ({_TASKS})" for table, key in _BY_TASK),
        f"DELETE FROM task_specs WHERE ordinal IN ({_TASKS})",
        *(f"DELETE FROM {table} WHERE first_sequence IN gone" for table in _BY_PLAN),
    )
)


def calls(forgotten: dict[str, int]) -> list[Call]:
    """The statements that remove plans, by id, that were submitted before a sequence."""
    rows = list(forgotten.items())
    return [call for statement in _STATEMENTS for call in statement.calls(rows)] if rows else []
