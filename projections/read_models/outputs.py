"""Large outputs as rows: one per accepted result, keyed by its log sequence, never changed."""

from projections.read_models import bulk

DDL = """
CREATE TABLE outputs (sequence INTEGER PRIMARY KEY, ordinal INTEGER NOT NULL, output BLOB NOT NULL);
CREATE INDEX outputs_by_task ON outputs(ordinal);
"""

NAMES = ("sequence", "ordinal", "output")

INSERT = bulk.insert_new("outputs", NAMES)

# The output that a COMPLETED task shows is that of the fact which completed it.
JOIN = "LEFT JOIN outputs o ON t.status = 'COMPLETED' AND o.sequence = t.settled_sequence"
"""Joins the output of a task ``t`` as ``o.output``; NULL when it stands in the task's own row."""
