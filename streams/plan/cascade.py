"""How one change of status spreads: dependents are judged, a failed plan skips the rest.

The whole wave settles within one fold, so READY and SKIPPED are never stored and never late. In a
plan of thousands of tasks it takes long: what may reach them all is a generator, which yields
between tasks. A command that is decided in between is decided on a plan whose own status has
changed already, and its fact is folded after this one.
"""

from collections.abc import Generator

import msgspec

from streams.plan import dependencies
from streams.plan.lifecycle import CLAIMABLE, ENDED, MOVES, TaskStatus
from streams.plan.state import Plan, Task, count_failure


class Cascade(msgspec.Struct, gc=False):
    """The consequences of one fact at ``sequence`` and log time ``at``, as they settle.

    ``wave`` holds the tasks that ended or were reopened, with their statuses before and after.
    """

    plan: Plan
    sequence: int
    at: float
    wave: list[tuple[Task, TaskStatus, TaskStatus]] = []

    def note(self, task: Task) -> None:
        """Note that this fact is the last one of ``task``; of the rest no more than the lease."""
        task.sequence = self.sequence
        task.updated_at = self.at
        self.plan.latest.append(task)

    def move(self, task: Task, trigger: str) -> None:
        """The only way to change a status: by a row of TRANSITIONS (KeyError: there is none)."""
        plan, before = self.plan, task.status
        after = MOVES[before, trigger]
        if task.sequence != self.sequence:  # it may have moved by this fact already
            self.note(task)
        plan.touched[task.spec.id] = task
        if before == after:
            return
        plan.counts[before] -= 1
        plan.counts[after] += 1
        if before == "FAILED":
            count_failure(plan, task, -1)
        task.status = after
        if after in ENDED or before in ENDED:
            task.settled_sequence = self.sequence
            if after == "FAILED":
                count_failure(plan, task, 1)
            if task.dependents:
                self.wave.append((task, before, after))
            self.want(task, (before in ENDED) - (after in ENDED))
        if after in ENDED or after == "PENDING":
            task.claimable_at = None
        elif after == "READY":
            task.claimable_at = self.at

    def want(self, task: Task, more: int) -> None:
        """Count for its dependencies that ``task`` is unfinished again (1) or has ended (-1)."""
        if more:
            for dependency in task.spec.depends_on:
                self.plan.tasks[dependency].wanted += more

    def judge(self, task: Task) -> None:
        """Derive where a waiting task stands now."""
        if task.status not in ("PENDING", "READY"):
            return
        verdict = dependencies.judge(task.spec, task.completed, task.done, task.ended)
        if verdict == "READY" and self.waits_for_target(task):
            verdict = "PENDING"
        if verdict == task.status:
            return
        match verdict:
            case "READY":
                self.move(task, "dependencies satisfied")
            case "PENDING":
                self.move(task, "dependency reopened")
            case "SKIPPED":
                self.move(task, "dependencies unsatisfiable")

    def wait_again(self, task: Task) -> None:
        """What was reopened while an attempt ran is waited for by the next one."""
        if task.status in CLAIMABLE and self.waits_for_target(task):
            self.move(task, "target reopened")
        else:
            self.judge(task)

    def waits_for_target(self, task: Task) -> bool:
        """Whether this is a critic whose target is still being worked on."""
        target = task.spec.target
        return target is not None and self.plan.tasks[target].status not in ENDED

    def spread(self) -> Generator[None, None, list[Task]]:
        """Carry ended and reopened tasks into their dependents' tallies; answers these."""
        reached: list[Task] = []
        for task, before, after in self.wave:
            rule = task.spec.on_failure
            old = dependencies.outcome(before, rule)
            new = dependencies.outcome(after, rule)
            for dependent in task.dependents:
                dependent.needs_bytes += (new.completed - old.completed) * task.output_bytes
                dependent.completed += new.completed - old.completed
                dependent.done += new.done - old.done
                dependent.ended += new.ended - old.ended
            reached += task.dependents
            yield
        self.wave = []
        return reached

    def settle(self) -> Generator[None]:
        """Let ended and reopened tasks change what waits for them, until nothing moves."""
        while self.wave:
            reached = yield from self.spread()
            for dependent in reached:
                self.judge(dependent)
                yield
        if self.plan.fatal and not self.plan.cancelled:
            yield from self.skip_the_rest()

    def skip_the_rest(self) -> Generator[None]:
        """What has not begun in a failed plan never will, unless an operator retries."""
        counts = self.plan.counts
        if not counts["PENDING"] + counts["READY"] + counts["REFINING"]:
            return
        for task in self.plan.tasks.values():
            if task.status in ("PENDING", "READY", "REFINING"):
                self.move(task, "plan failed")
                yield
        yield from self.spread()
