"""The plan aggregate: a pure model of tasks, leases, critics and failure; no I/O, no clock."""
