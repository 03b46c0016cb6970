"""A plan as DESIGN §4 says it is after some facts: a second reading of the rules, in plain values.

It shares nothing with the product: facts are JSON as a stranger reads them from the log, and what a
task waits for is counted anew after each fact. It knows all joins, critics, both budgets, and what
operators do; facts that were published by hand are not its subject.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from tests.cluster.record import Fact

Json = dict[str, Any]

ENDED = {"COMPLETED", "FAILED", "SKIPPED", "CANCELLED"}
STATUSES = (*ENDED, "PENDING", "READY", "RUNNING", "REFINING")
SILENT_FOR_NOTHING = 10  # lost leases of owners that never reported (AGENTS §2)
REJECTED = ("rejected", "a critic rejected the output and no retries are left")


class PlainTask:
    """One task: what was asked of it, and what the facts have made of it."""

    def __init__(self, spec: Json) -> None:
        self.name = spec["id"]
        self.depends_on = spec.get("depends_on", [])
        self.target = spec.get("target")
        self.join = spec.get("join", "all")
        self.quorum: int = spec.get("quorum", 0)
        self.goes_on = spec.get("on_failure", "fail_plan") == "continue"
        self.max_retries = spec.get("max_retries", 3)
        self.max_lost = spec.get("max_lost_leases", 3)
        self.status = "PENDING"
        self.attempt = self.retry = self.lost = self.silent = self.sequence = 0
        self.settled = self.claimed = 0
        self.owner: str | None = None
        self.lease_until: float | None = None
        self.claimable_at: float | None = None
        self.feedback: object = None
        self.result: tuple[str, Json] | None = None

    @property
    def error(self) -> tuple[str, str] | tuple[None, None]:
        if self.status == "SKIPPED":
            return None, None  # the failed plan ended it
        if self.result is not None and self.result[0] == "failed":
            return self.result[1]["error_type"], self.result[1].get("error_message", "")
        return REJECTED if self.status == "FAILED" else (None, None)

    @property
    def output(self) -> object:
        if self.status != "COMPLETED" or self.result is None:
            return None
        return self.result[1].get("output")


class PlainPlan:
    """One plan: take its facts in the order of the log."""

    def __init__(self, fact: Fact) -> None:
        self.tasks = {spec["id"]: PlainTask(spec) for spec in fact.data["tasks"]}
        self.paused = self.cancelled = self.begun = False
        self.finished_at: float | None = None
        self.run = self.sequence = fact.sequence
        self.retried = 0
        self._now = fact
        for task in self.tasks.values():
            task.sequence = fact.sequence
        self._settle()

    # -- what is derived ------------------------------------------------------------------------

    def _failures(self, *, of_this_run: bool) -> int:
        return sum(
            task.status == "FAILED"
            and not task.goes_on
            and (task.settled > self.retried) is of_this_run
            for task in self.tasks.values()
        )

    @property
    def status(self) -> str:
        if self.cancelled:
            return "CANCELLED"
        if self._failures(of_this_run=True):
            return "FAILED"
        if all(task.status in ENDED for task in self.tasks.values()):
            return "FAILED" if self._failures(of_this_run=False) else "COMPLETED"
        if self.paused:
            return "PAUSED"
        return "RUNNING" if self.begun else "READY"

    @property
    def counts(self) -> dict[str, int]:
        counted = Counter(task.status for task in self.tasks.values())
        return {status: counted[status] for status in STATUSES}

    def _stands(self, task: PlainTask) -> str:
        """Where a task that waits for others stands."""
        waited = [self.tasks[name] for name in task.depends_on]
        if not waited:
            return "READY"
        completed = sum(each.status == "COMPLETED" for each in waited)
        without = sum(each.status in {"FAILED", "SKIPPED"} and each.goes_on for each in waited)
        ended = sum(each.status in ENDED for each in waited)
        if task.join == "all":
            ready, hopeless = completed + without == len(waited), ended > completed + without
        else:
            needed = 1 if task.join == "any" else task.quorum
            ready, hopeless = completed >= needed, completed + len(waited) - ended < needed
        if ready and self._target_is_open(task):
            return "PENDING"
        return "READY" if ready else "SKIPPED" if hopeless else "PENDING"

    def _target_is_open(self, task: PlainTask) -> bool:
        return task.target is not None and self.tasks[task.target].status not in ENDED

    def _settle(self) -> None:
        """Derive until nothing changes; then what has not begun in a failed plan is skipped."""
        while any(self._judge(task) for task in self.tasks.values()):
            pass
        if self.status == "FAILED" and self._failures(of_this_run=True):
            for task in self.tasks.values():
                if task.status in {"PENDING", "READY", "REFINING"}:
                    self._become(task, "SKIPPED")

    def _judge(self, task: PlainTask) -> bool:
        if task.status not in {"PENDING", "READY"}:
            return False
        stands = self._stands(task)
        changed = stands != task.status
        if changed:
            self._become(task, stands)
        return changed

    def _become(self, task: PlainTask, status: str) -> None:
        if (status in ENDED) != (task.status in ENDED) or status in ENDED:
            task.settled = self._now.sequence
        task.status, task.sequence = status, self._now.sequence
        if status == "READY":
            task.claimable_at = self._now.at
        elif status in ENDED or status == "PENDING":
            task.claimable_at = None

    # -- facts ----------------------------------------------------------------------------------

    def take(self, fact: Fact) -> None:
        """Fold the next fact about the plan or one of its tasks."""
        self._now = fact
        what = fact.type.split(".")[1]
        if fact.task_id:
            counts = self._task_fact(self.tasks[fact.task_id], what, fact.data)
        else:
            counts = self._plan_fact(what, fact.data)
        if counts:
            self.sequence = fact.sequence
            self._settle()

    def _plan_fact(self, what: str, data: Json) -> bool:
        """Whether it counts: a task's fact may have come between a command and its own fact."""
        if what == "paused":
            counts = self.status in {"READY", "RUNNING"}
            self.paused |= counts
        elif what == "resumed":
            counts = self.status == "PAUSED"
            self.paused &= not counts
        elif what == "finished":
            counts = data["status"] == self.status
            self.finished_at = self._now.at if counts else self.finished_at
        elif what == "cancelled":
            counts = self.finished_at is None and self.status not in {"COMPLETED", "CANCELLED"}
            if counts:
                self._cancel()
        else:
            names = [data["task_id"], *data["also"]]
            counts = not self.cancelled and all(
                self.tasks[name].status == "FAILED" for name in names
            )
            if counts:
                self._retry(names)
        return counts

    def _cancel(self) -> None:
        self.cancelled = True
        for task in self.tasks.values():
            if task.status not in ENDED:
                task.owner = task.lease_until = None
                self._become(task, "CANCELLED")

    def _retry(self, names: list[str]) -> None:
        self.finished_at, self.retried = None, self._now.sequence
        for name in names:
            task = self.tasks[name]
            task.retry = task.lost = task.silent = 0
            self._become(task, "READY")
            self._reopen_critics(task)
        for task in self.tasks.values():
            if task.status == "SKIPPED":
                self._become(task, "PENDING")

    def _task_fact(self, task: PlainTask, what: str, data: Json) -> bool:
        if what == "claimed":
            return self._claim(task, data)
        if task.status != "RUNNING" or (task.owner, task.attempt) != (
            data["owner"],
            data["attempt"],
        ):
            return False  # the lease went to another attempt while this was on its way
        task.sequence = self._now.sequence
        if what in {"heartbeat", "checkpointed"}:
            task.lease_until = self._now.at + data["lease_s"]
        if what in {"completed", "failed", "released"}:
            task.owner = task.lease_until = None
            task.result = (what, data)
            {"completed": self._complete, "failed": self._fail, "released": self._release}[what](
                task, data
            )
        return True

    def _claim(self, task: PlainTask, data: Json) -> bool:
        if not self._may_claim(task, data):
            return False
        if task.status == "RUNNING":
            free = self._costs_nothing(task, data)
            task.silent += free
            task.lost += not free
        self.begun = True
        self._become(task, "RUNNING")
        task.attempt, task.owner, task.claimable_at = data["attempt"], data["owner"], None
        task.lease_until = self._now.at + data["lease_s"]
        task.claimed = self._now.sequence
        return True

    def _may_claim(self, task: PlainTask, data: Json) -> bool:
        """Also a claim may have been on its way when the plan was paused or the task reopened."""
        if self.status not in {"READY", "RUNNING"} or self.finished_at is not None:
            return False
        if task.status != "RUNNING":
            return task.status in {"READY", "REFINING"} and data["attempt"] == task.attempt + 1
        over = task.lease_until is not None and self._now.at >= task.lease_until
        spent = task.lost >= task.max_lost and not self._costs_nothing(task, data)
        return over and not spent and data["previous_owner"] == task.owner

    @staticmethod
    def _costs_nothing(task: PlainTask, data: Json) -> bool:
        return data.get("silent", False) and task.silent < SILENT_FOR_NOTHING

    def _fail(self, task: PlainTask, data: Json) -> None:
        if "retry_in_s" not in data:
            self._become(task, "FAILED")
            return
        task.retry += 1
        self._wait_again(task, "REFINING", data["retry_in_s"])

    def _release(self, task: PlainTask, data: Json) -> None:
        self._wait_again(task, "REFINING" if task.retry else "READY", data.get("retry_in_s", 0))

    def _wait_again(self, task: PlainTask, status: str, delay_s: float) -> None:
        if self._target_is_open(task):
            status = "PENDING"
        self._become(task, status)
        if status != "PENDING":
            task.claimable_at = self._now.at + delay_s

    def _complete(self, task: PlainTask, data: Json) -> None:
        verdict = data.get("verdict")
        target = self.tasks.get(task.target or "")
        if target is None or verdict is None:
            self._become(task, "COMPLETED")
        elif target.status not in ENDED or target.settled > task.claimed:
            self._become(task, "PENDING")  # its verdict is about an output that is no more
        elif target.status != "COMPLETED" or verdict["pass"]:
            self._become(task, "COMPLETED")
        else:
            self._reject(task, target, verdict.get("feedback"))

    def _reject(self, critic: PlainTask, target: PlainTask, feedback: object) -> None:
        target.feedback = feedback
        if target.retry >= target.max_retries:
            self._become(target, "FAILED")
            self._become(critic, "COMPLETED")
            return
        target.retry += 1
        self._become(target, "REFINING")
        target.claimable_at = self._now.at
        self._become(critic, "PENDING")
        self._reopen_critics(target)

    def _reopen_critics(self, target: PlainTask) -> None:
        for task in self.tasks.values():
            if task.target == target.name and task.status in {"READY", "REFINING", "COMPLETED"}:
                self._become(task, "PENDING")


def plan_at(facts: Iterable[Fact], plan_id: str, sequence: int) -> PlainPlan | None:
    """The plan after the facts up to ``sequence``; None: it was not there yet."""
    plan: PlainPlan | None = None
    for fact in _of(facts, plan_id, sequence):
        if plan is None:
            plan = PlainPlan(fact)
        else:
            plan.take(fact)
    return plan


def _of(facts: Iterable[Fact], plan_id: str, sequence: int) -> Iterator[Fact]:
    return (each for each in facts if each.plan_id == plan_id and each.sequence <= sequence)
