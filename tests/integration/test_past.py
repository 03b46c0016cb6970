"""A plan as of any sequence is what DESIGN §4 makes of its facts, on every instance."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import running
from service.settings.loading import load_settings
from tests.cluster.log_reader import read_log
from tests.cluster.record import Fact
from tests.conftest import PrivateServer
from tests.integration.plain_fold import Json, PlainPlan, PlainTask, plan_at

PLANS = 6
STEPS = 180
MOMENTS = 8  # of each plan, on each instance
SHORT_S, LONG_S = 0.1, 60.0
ENDS = {"complete", "fail", "release"}
WITHIN_S = 0.002  # the answer's times have microseconds, the log's nanoseconds

TOLD = {
    "plan.submitted", "plan.paused", "plan.resumed", "plan.cancelled", "plan.retried",
    "plan.finished", "task.claimed", "task.started", "task.heartbeat", "task.progress",
    "task.checkpointed", "task.completed", "task.failed", "task.released",
}  # fmt: skip


@asynccontextmanager
async def instances(nats_url: str, folder: Path) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Two on one log, each with its client; workers are the test's own."""
    async with AsyncExitStack() as stack:
        clients: list[httpx.AsyncClient] = []
        for name in ("a", "b"):
            flags = {"data_dir": str(folder / name), "http.port": 0, "nats.url": nats_url}
            settings = load_settings(environment={}, directory=folder, flags=flags)
            instance = await stack.enter_async_context(
                running(settings, frozenset({"api", "daemons"}))
            )
            client = httpx.AsyncClient(base_url=instance.http_url, timeout=30)
            clients.append(await stack.enter_async_context(client))
        yield clients


class Life:
    """Random plans, and random commands of three workers and an operator about them."""

    def __init__(self, clients: list[httpx.AsyncClient], seed: int) -> None:
        self._clients = clients
        self._dice = random.Random(seed)
        self.plans = {f"p{number}": self._plan() for number in range(PLANS)}
        self._leases: list[Json] = []
        self._ended: list[Json] = []
        self._paused: list[str] = []
        self.answers: Counter[int] = Counter()

    def _plan(self) -> list[Json]:
        tasks: list[Json] = []
        for number in range(self._dice.randint(3, 8)):
            before = [task["id"] for task in tasks]
            task: Json = {
                "id": f"t{number}",
                "kind": "outside",
                "depends_on": self._dice.sample(before, self._dice.randint(0, min(3, number))),
                "on_failure": self._dice.choice(["fail_plan", *["continue"] * 4]),
                "max_retries": self._dice.randint(0, 2),
                "max_lost_leases": self._dice.randint(0, 2),
            }
            if task["depends_on"]:
                task["join"] = self._dice.choice(["all", "any", "quorum"])
                if task["join"] == "quorum":
                    task["quorum"] = self._dice.randint(1, len(task["depends_on"]))
                if self._dice.random() < 0.4:
                    task |= {"type": "critic", "target": task["depends_on"][0]}
            tasks.append(task)
        return tasks

    async def live(self) -> None:
        """Submit the plans while others are worked on already, and do the steps."""
        unsaid = [(plan_id, tasks) for plan_id, tasks in self.plans.items() if plan_id != "told"]
        for step in range(STEPS):
            if unsaid and step % (STEPS // PLANS) == 0:
                plan_id, tasks = unsaid.pop()
                await self._say("/v1/plans", {"id": plan_id, "tasks": tasks})
            (act,) = self._dice.choices(
                (self._claim, self._work, self._operate, self._take_away), (30, 55, 12, 3)
            )
            await act()

    async def tell_all(self) -> None:
        """Each kind of fact that chance may leave out, about a plan of its own."""
        tasks: list[Json] = [
            {"id": "a", "kind": "told"},
            {"id": "c", "kind": "told", "type": "critic", "depends_on": ["a"]},
        ]
        self.plans["told"] = tasks
        await self._say("/v1/plans", {"id": "told", "tasks": tasks})
        await self._take("a", lease_s=SHORT_S)
        await self._tell("a", 1, "start")
        await self._take("a")  # once the lease has expired
        await self._tell("a", 2, "heartbeat", progress="half")
        await self._tell("a", 2, "checkpoint", key="k", value=1)
        await self._tell("a", 2, "complete", output=["draft"])
        await self._take("c")
        await self._tell("c", 1, "complete", verdict={"pass": False, "feedback": "no"})
        await self._take("a")
        await self._tell("a", 3, "release")
        await self._take("a")
        await self._tell("a", 4, "fail", error_type="other", retryable=False)
        for verb in ("retry", "pause", "resume", "cancel"):
            await self._say(f"/v1/plans/told/{verb}", {})

    async def _take(self, task_id: str, *, lease_s: float = LONG_S) -> None:
        body = {"owner": "teller", "lease_s": lease_s}
        async with asyncio.timeout(20):
            while True:
                answer = await self._say(f"/v1/plans/told/tasks/{task_id}/claim", body)
                if answer.status_code == httpx.codes.OK:
                    return
                await asyncio.sleep(0.02)

    async def _tell(self, task_id: str, attempt: int, word: str, **said: Any) -> None:
        who = {"owner": "teller", "attempt": attempt}
        answer = await self._say(f"/v1/plans/told/tasks/{task_id}/{word}", who | said)
        assert answer.status_code == httpx.codes.OK, answer.text

    async def _claim(self) -> None:
        owner = f"w{self._dice.randrange(3)}"
        body = {
            "owner": owner,
            "kinds": ["outside"],
            "limit": self._dice.randint(1, 3),
            "lease_s": self._dice.choice([SHORT_S, LONG_S, LONG_S]),
            "start": self._dice.random() < 0.3,
        }
        claims = (await self._say("/v1/claims", body)).json()["claims"]
        self._leases += [claim | {"owner": owner} for claim in claims]

    async def _work(self) -> None:
        """A word about a lease: mostly one that may still be held; some have ended or were lost."""
        late = self._dice.random() < 0.1
        leases = self._ended if late else self._leases[-6:]
        if not leases:
            return
        lease = self._dice.choice(leases)
        word, said = self._word(lease)
        if word in ENDS and not late:
            self._leases.remove(lease)
            self._ended.append(lease)
        path = f"{_path(lease)}/{word}"
        await self._say(path, {"owner": lease["owner"], "attempt": lease["attempt"]} | said)

    def _word(self, lease: Json) -> tuple[str, Json]:
        dice = self._dice
        complete: Json = {"output": {"by": lease["owner"], "n": dice.random()}}
        if lease["type"] == "critic":
            complete["verdict"] = {
                "pass": dice.random() < 0.4,
                "feedback": ["again", dice.random()],
            }
        words: list[tuple[str, Json]] = [
            ("start", {}),
            ("heartbeat", {"progress": 1}),
            ("progress", {"data": {"text": "…"}}),
            ("checkpoint", {"key": "state", "value": dice.random()}),
            ("release", {"reason": "tired", "retry_in_s": 0}),
            ("fail", {"error_type": "http_error", "error_message": "502", "retry_in_s": 0}),
            ("fail", {"error_type": "mine", "retryable": False}),
            ("complete", complete),
        ]
        return dice.choices(words, (2, 2, 1, 2, 1, 3, 1, 8))[0]

    async def _operate(self) -> None:
        if self._paused and self._dice.random() < 0.6:
            await self._say(f"/v1/plans/{self._paused.pop()}/resume", {})
            return
        worked_on = [lease["plan_id"] for lease in self._leases[-6:]]
        plan_id = self._dice.choice([*worked_on, *self.plans])
        (verb,) = self._dice.choices(("pause", "retry", "cancel"), (7, 8, 1))
        if verb == "pause":
            self._paused.append(plan_id)
        if verb == "retry" and self._dice.random() < 0.5:
            task_id = self._dice.choice(self.plans[plan_id])["id"]
            body: Json = {"fresh": self._dice.random() < 0.5}
            await self._say(f"/v1/plans/{plan_id}/tasks/{task_id}/retry", body)
        else:
            await self._say(f"/v1/plans/{plan_id}/{verb}", {"reason": "by lot"})

    async def _take_away(self) -> None:
        if self._dice.random() < 0.2:
            await self._say(f"/v1/owners/w{self._dice.randrange(3)}/goodbye", {})
        elif self._leases:
            lease = self._dice.choice(self._leases[-6:])
            await self._say(f"{_path(lease)}/take-back", {"attempt": lease["attempt"]})

    async def _say(self, path: str, body: Json) -> httpx.Response:
        answer = await self._dice.choice(self._clients).post(path, json=body)
        self.answers[answer.status_code] += 1
        assert answer.status_code in {200, 201, 404, 409}, (path, body, answer.text)
        return answer


def _path(lease: Json) -> str:
    return f"/v1/plans/{lease['plan_id']}/tasks/{lease['task_id']}"


def seconds(at: str | None) -> float | None:
    return None if at is None else datetime.fromisoformat(at).timestamp()


def same(expected: Any, shown: Any) -> bool:
    """Equal, times within what an answer can hold of them."""
    if isinstance(expected, float) and isinstance(shown, float):
        return abs(expected - shown) < WITHIN_S
    return bool(expected == shown)


def of_task(task: PlainTask, shown: Json) -> dict[str, tuple[object, object]]:
    """What the two readings say of each field."""
    return {
        name: (getattr(task, name), shown[name])
        for name in (
            "status",
            "attempt",
            "retry",
            "lost",
            "owner",
            "sequence",
            "output",
            "feedback",
        )
    } | {
        "error": (task.error, (shown["error_type"], shown["error_message"])),
        "lease_until": (task.lease_until, seconds(shown["lease_until"])),
        "claimable_at": (task.claimable_at, seconds(shown["claimable_at"])),
    }


def differences(plan: PlainPlan, shown: Json) -> dict[str, tuple[object, object]]:
    """Field by field, where the answer is not what the facts say."""
    read: dict[str, tuple[object, object]] = {
        "status": (plan.status, shown["status"]),
        "counts": (plan.counts, shown["counts"]),
        "sequence": (plan.sequence, shown["sequence"]),
        "finished_at": (plan.finished_at, seconds(shown["finished_at"])),
        "tasks": (list(plan.tasks), [task["task_id"] for task in shown["tasks"]]),
    }
    for task in shown["tasks"]:
        fields = of_task(plan.tasks[task["task_id"]], task)
        read |= {f"{task['task_id']}.{name}": both for name, both in fields.items()}
    return {name: both for name, both in read.items() if not same(*both)}


def moments(facts: list[Fact], plan_id: str, dice: random.Random) -> list[int]:
    """The first and the last sequence of a plan, and some between them, of any plan's facts."""
    mine = [fact.sequence for fact in facts if fact.plan_id == plan_id]
    between = dice.choices(range(mine[0], mine[-1] + 1), k=MOMENTS)
    return sorted({mine[0], mine[-1], *between})


async def check_moments(clients: list[httpx.AsyncClient], facts: list[Fact], life: Life) -> None:
    dice = random.Random(len(facts))
    for plan_id in life.plans:
        for at in moments(facts, plan_id, dice):
            expected = plan_at(facts, plan_id, at)
            assert expected is not None
            for client in clients:
                answer = await client.get(f"/v1/plans/{plan_id}", params={"at_sequence": at})
                assert answer.status_code == httpx.codes.OK, answer.text
                assert differences(expected, answer.json()) == {}, (plan_id, at)


@pytest.mark.timeout(300)
async def test_any_moment_is_what_the_facts_up_to_it_say(
    start_nats: Callable[[], PrivateServer], tmp_path: Path, *, long_faults: bool
) -> None:
    seen: Counter[str] = Counter()
    for seed in range(20 if long_faults else 1):
        server = start_nats()
        async with instances(server.url, tmp_path / str(seed)) as clients:
            life = Life(clients, seed)
            await life.tell_all()
            await life.live()
            facts = await read_log([server.url])
            await check_moments(clients, facts, life)
        seen += Counter(fact.type for fact in facts)
        seen["a lease that was taken over"] += sum("previous_owner" in f.data for f in facts)
        seen["a verdict against"] += sum(_rejects(fact) for fact in facts)
    assert set(seen) == {*TOLD, "a lease that was taken over", "a verdict against"}, seen


def _rejects(fact: Fact) -> bool:
    verdict = fact.data.get("verdict")
    return verdict is not None and not verdict["pass"]
