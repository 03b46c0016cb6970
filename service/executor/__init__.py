"""The executor claims tasks that it has handlers for, runs them, and reports what became of them."""

from service.executor.executor import Executor, Snapshot

__all__ = ["Executor", "Snapshot"]
