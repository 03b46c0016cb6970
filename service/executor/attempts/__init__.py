"""One attempt at a task: its lease, its heartbeats, its result."""
