"""The plan aggregate: a pure model of tasks, leases, critics and failure, with no I/O and no clock."""
