"""What must hold of every history: laws about the facts that were accepted, one after the other.

A judge of its own: it knows nothing of the fold but which facts it accepted.
"""

from collections.abc import Iterable

from streams.log import Fact
from streams.plan.events import (
    Cancelled,
    Checkpointed,
    Claimed,
    Completed,
    Failed,
    Finished,
    Heartbeat,
    Paused,
    Released,
    Resumed,
    Retried,
    TaskEvent,
)

Lived = Iterable[tuple[Fact, str | None]]


class _Attempts:
    """One task's attempts as far as the history has been read."""

    def __init__(self) -> None:
        self.attempt = 0
        self.owner: str | None = None
        self.lease_until = 0.0

    def claimed(self, event: Claimed, at: float) -> None:
        assert event.attempt == self.attempt + 1, "attempts grow by exactly one"
        if self.owner is None:
            assert event.previous_owner is None, "no owner was replaced"
        else:
            assert event.previous_owner == self.owner, "a reclaim names whom it pushes aside"
            assert at >= self.lease_until, "a lease is never reclaimed before its time"
        self.attempt, self.owner = event.attempt, event.owner
        self.lease_until = at + event.lease_s

    def owned(self, event: TaskEvent, at: float) -> None:
        assert self.owner is not None, "no fact of an attempt after its end"
        assert (event.owner, event.attempt) == (self.owner, self.attempt), "one owner per attempt"
        if isinstance(event, Heartbeat | Checkpointed):
            self.lease_until = at + event.lease_s
        if isinstance(event, Completed | Failed | Released):
            self.owner = None


class _Life:
    """One plan's life as far as the history has been read."""

    def __init__(self) -> None:
        self.tasks: dict[str, _Attempts] = {}
        self.paused = self.cancelled = self.finished = False
        self.finishes = self.runs = 0

    def saw(self, fact: Fact) -> None:
        event = fact.event
        if self.finished:
            assert isinstance(event, Retried), "nothing but a retry follows the end"
        if self.cancelled:
            assert isinstance(event, Finished), "a cancelled plan only ends"
        match event:
            case Claimed():
                assert not self.paused, "a paused plan hands out nothing"
                self._task(fact).claimed(event, fact.at)
            case TaskEvent():
                self._task(fact).owned(event, fact.at)
            case Paused() | Resumed():
                self.paused = isinstance(event, Paused)
            case Cancelled():
                self.cancelled = True
            case Retried():
                self.runs += self.finished
                self.finished = False
            case Finished():
                self._finish()
            case _:
                pass

    def _finish(self) -> None:
        self.finished = True
        self.finishes += 1
        assert self.finishes == self.runs + 1, "finished once per run"
        if not self.cancelled:
            running = [name for name, task in self.tasks.items() if task.owner is not None]
            assert not running, "nothing runs in a finished plan"

    def _task(self, fact: Fact) -> _Attempts:
        assert fact.task_id is not None
        return self.tasks.setdefault(fact.task_id, _Attempts())


def check_history(lived: Lived) -> None:
    """Read a history and check every law; ignored facts are none of it."""
    lives: dict[str, _Life] = {}
    completed: set[tuple[str, str | None, int]] = set()
    for fact, ignored in lived:
        if ignored is not None:
            continue
        lives.setdefault(fact.plan_id, _Life()).saw(fact)
        if isinstance(fact.event, Completed):
            name = fact.plan_id, fact.task_id, fact.event.attempt
            assert name not in completed, "completed at most once per attempt"
            completed.add(name)
