"""The read models: plans, tasks, executions and audit entries as rows in SQLite."""
