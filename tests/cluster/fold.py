"""An independent fold of the log: who held which lease when, and where every task ended.

It shares nothing with the product and knows the rules from DESIGN §4, as far as the plans of this
farm use them: joins "all", `on_failure` "fail_plan", no critics.
"""

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from tests.cluster.record import Fact, TaskName

ENDS = {"completed": "COMPLETED", "failed": "FAILED", "released": "READY"}
UNFINISHED = ("PENDING", "READY", "REFINING", "RUNNING")


class Lease(msgspec.Struct):
    """One attempt: from its claim to the fact that ended it."""

    owner: str
    attempt: int
    claimed: Fact
    until: float
    ended: Fact | None = None


class Task(msgspec.Struct):
    """One task as it stands, with all of its leases."""

    depends_on: tuple[str, ...]
    status: str = "PENDING"
    attempt: int = 0
    retry: int = 0
    owner: str | None = None
    leases: list[Lease] = []


class Plan(msgspec.Struct):
    """One plan as it stands; ``toggles`` are what operators did to it, with log times."""

    tasks: dict[str, Task]
    paused: bool = False
    cancelled: bool = False
    finished: bool = False
    toggles: list[tuple[float, str]] = []

    @property
    def failed(self) -> bool:
        return any(task.status == "FAILED" for task in self.tasks.values())

    @property
    def open(self) -> bool:
        """Whether it hands out tasks."""
        return not (self.paused or self.cancelled or self.failed or self.finished)


class Fold:
    """All plans after ``facts``; ``wrong`` says what no log of Holdfast may contain."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        self.plans: dict[str, Plan] = {}
        self.leases: dict[TaskName, list[Lease]] = defaultdict(list)
        self.wrong: list[str] = []
        for fact in facts:
            self._take(fact)

    def lease(self, task: TaskName, owner: str, attempt: int) -> Lease | None:
        """The lease of this owner and attempt that counted, if there was one."""
        for lease in self.leases.get(task, ()):
            if (lease.owner, lease.attempt) == (owner, attempt):
                return lease
        return None

    def _take(self, fact: Fact) -> None:
        if fact.type == "plan.submitted":
            self._submit(fact)
            return
        plan = self.plans.get(fact.plan_id)
        if plan is None:
            self.wrong.append(
                f"{fact.sequence} {fact.type} on plan {fact.plan_id}, never submitted"
            )
        elif not fact.task_id:
            self._plan_fact(plan, fact)
        else:
            self._task_fact(plan, plan.tasks[fact.task_id], fact)

    def _submit(self, fact: Fact) -> None:
        if fact.plan_id in self.plans:
            self.wrong.append(f"{fact.sequence}: plan {fact.plan_id} is submitted twice")
            return
        tasks = {task["id"]: Task(tuple(task.get("depends_on", ()))) for task in fact.data["tasks"]}
        self.plans[fact.plan_id] = plan = Plan(tasks)
        _judge(plan)

    def _plan_fact(self, plan: Plan, fact: Fact) -> None:
        what = fact.type.removeprefix("plan.")
        if what == "finished":
            if plan.finished:
                self.wrong.append(f"{fact.sequence}: plan {fact.plan_id} is finished twice")
            plan.finished = True
            return
        if what == "retried":
            _retry(plan, fact.data["task_id"])
        else:
            plan.toggles.append((fact.at, what))
            plan.paused = what == "paused"
        if what == "cancelled":
            _cancel(plan, fact)
        _judge(plan)

    def _task_fact(self, plan: Plan, task: Task, fact: Fact) -> None:
        what = fact.type.removeprefix("task.")
        owner, attempt = fact.data["owner"], fact.data["attempt"]
        if what == "claimed":
            self._claim(plan, task, fact)
            return
        if task.status != "RUNNING" or (task.owner, task.attempt) != (owner, attempt):
            # DESIGN §4, "Guards hold twice": such a fact counts for nothing, and the expectation
            # on the subject keeps it out of the log in the first place.
            self.wrong.append(f"{fact.sequence}: {what} by {owner}/{attempt}, who holds no lease")
        elif what == "heartbeat":
            task.leases[-1].until = fact.at + fact.data["lease_s"]
        elif what in ENDS:
            _end(task, fact, _after(what, task, fact))
            if task.status == "FAILED":
                _skip_the_rest(plan)
            _judge(plan)

    def _claim(self, plan: Plan, task: Task, fact: Fact) -> None:
        owner, attempt = fact.data["owner"], fact.data["attempt"]
        if not plan.open:
            return  # it was on its way when the plan was paused or ended, and does not count
        if task.status == "RUNNING" and fact.at < task.leases[-1].until:
            self.wrong.append(
                f"{fact.sequence}: {owner} takes over {fact.task} "
                f"{task.leases[-1].until - fact.at:.1f} s before its lease ends"
            )
            return
        if task.status not in ("READY", "REFINING", "RUNNING") or attempt != task.attempt + 1:
            self.wrong.append(
                f"{fact.sequence}: {owner} claims {fact.task} as attempt {attempt} "
                f"of {task.status}/{task.attempt}"
            )
            return
        if task.status == "RUNNING":
            task.leases[-1].ended = fact
        task.status, task.owner, task.attempt = "RUNNING", owner, attempt
        lease = Lease(owner, attempt, fact, fact.at + fact.data["lease_s"])
        task.leases.append(lease)
        self.leases[fact.task].append(lease)


def _after(what: str, task: Task, fact: Fact) -> str:
    if what == "failed" and fact.data.get("retry_in_s") is not None:
        task.retry += 1
        return "REFINING"
    if what == "released" and task.retry:
        return "REFINING"
    return ENDS[what]


def _end(task: Task, fact: Fact, status: str) -> None:
    if task.status == "RUNNING":
        task.leases[-1].ended = fact
    task.status, task.owner = status, None


def _retry(plan: Plan, task_id: str) -> None:
    plan.finished = False
    plan.tasks[task_id].status, plan.tasks[task_id].retry = "READY", 0
    for task in plan.tasks.values():
        if task.status == "SKIPPED":
            task.status = "PENDING"


def _cancel(plan: Plan, fact: Fact) -> None:
    plan.cancelled = True
    for task in plan.tasks.values():
        if task.status in UNFINISHED:
            _end(task, fact, "CANCELLED")


def _skip_the_rest(plan: Plan) -> None:
    for task in plan.tasks.values():
        if task.status in ("PENDING", "READY", "REFINING"):
            task.status = "SKIPPED"


def _judge(plan: Plan) -> None:
    for task in plan.tasks.values():
        waits = task.status == "PENDING" and not plan.cancelled
        if waits and all(plan.tasks[each].status == "COMPLETED" for each in task.depends_on):
            task.status = "READY"
