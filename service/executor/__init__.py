"""The executor claims tasks that it has handlers for, runs them and reports how they ended."""

from service.executor.executor import Executor, Snapshot

__all__ = ["Executor", "Snapshot"]
