"""Workers over HTTP that never give up: what got no answer is said again until it is answered.

They are not nice: some fall asleep over their lease, fail, release, and speak again too late.
Every acknowledged write goes into a ledger, to be looked up in the log afterwards.
"""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import msgspec

from streams.log import Fact
from streams.plan.events import TYPE_NAMES, TaskEvent

PAUSE_S = 0.02
REQUEST_S = 15.0
LEASE_S = 2.0
TROUBLE = (httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.INSUFFICIENT_STORAGE)

Json = dict[str, Any]


class Acknowledged(msgspec.Struct, frozen=True):
    """A write that was answered with 2xx, as the worker understood it."""

    sequence: int
    type: str
    plan_id: str
    task_id: str | None = None
    owner: str = ""
    attempt: int = 0


class Ledger:
    """What was acknowledged, in the order in which the answers came."""

    def __init__(self) -> None:
        self.entries: list[Acknowledged] = []

    def add(self, entry: Acknowledged) -> None:
        self.entries.append(entry)

    def assert_in(self, facts: list[Fact]) -> None:
        """Everything acknowledged stands in the log, where it was said to stand."""
        by_sequence = {fact.sequence: fact for fact in facts}
        for entry in self.entries:
            fact = by_sequence.get(entry.sequence)
            assert fact is not None, f"lost: {entry}"
            assert _as_acknowledged(fact) == entry


def _as_acknowledged(fact: Fact) -> Acknowledged:
    event = fact.event
    owner, attempt = (event.owner, event.attempt) if isinstance(event, TaskEvent) else ("", 0)
    return Acknowledged(
        fact.sequence, TYPE_NAMES[type(event)], fact.plan_id, fact.task_id, owner, attempt
    )


class Voice:
    """Says a thing until it is answered, wherever the service is by then."""

    def __init__(self, url: Callable[[], str]) -> None:
        self._url = url
        self._client = httpx.AsyncClient(timeout=REQUEST_S)
        self.unanswered = 0
        self.newest_asked = 0.0  # when the newest question that was answered was asked

    async def say(self, path: str, body: Json) -> tuple[int, Json]:
        """The answer, 2xx or 4xx; a 503, a 507 or none at all is not one."""
        while True:
            url = self._url()
            if url:
                asked = time.monotonic()
                with suppress(httpx.TransportError):
                    answer = await self._client.post(f"{url}{path}", json=body)
                    assert answer.status_code in (200, 201, 409, *TROUBLE), answer.text
                    if answer.status_code not in TROUBLE:
                        self.newest_asked = max(self.newest_asked, asked)
                        return answer.status_code, answer.json()
                self.unanswered += 1
            await asyncio.sleep(PAUSE_S)

    async def close(self) -> None:
        await self._client.aclose()


class Worker:
    """One owner: claims a handful, works through it in any order, and claims again."""

    def __init__(
        self, owner: str, voice: Voice, ledger: Ledger, dice: random.Random, hold: int
    ) -> None:
        self.owner = owner
        self.held: list[Json] = []
        self._voice = voice
        self._ledger = ledger
        self._dice = dice
        self._hold = hold
        self._asleep: list[tuple[float, Json]] = []
        self._renewed_at = 0.0

    async def work(self) -> None:
        """Until cancelled."""
        while True:
            wish = {"owner": self.owner, "limit": self._hold, "lease_s": LEASE_S, "wait_s": 0.3}
            _, answer = await self._voice.say("/v1/claims", wish)
            self._renewed_at = time.monotonic()
            self.held = answer["claims"]
            for claim in self.held:
                self._note("task.claimed", claim, claim["fencing_token"])
            await self._work_off()
            await self._wake_up()

    async def _work_off(self) -> None:
        self._dice.shuffle(self.held)
        while self.held:
            if time.monotonic() - self._renewed_at > LEASE_S / 4:
                await self._renew()  # which may show that all of them are lost
            elif self._dice.random() < 0.2:
                count = self._dice.randint(1, 8)
                batch, self.held = self.held[:count], self.held[count:]
                await self._report(batch)
            else:
                await self._carry_out(self.held.pop())

    async def _renew(self) -> None:
        leases = [{key: claim[key] for key in _NAME} for claim in self.held]
        _, answer = await self._voice.say(
            "/v1/heartbeats", {"owner": self.owner, "leases": leases[:500]}
        )
        self._renewed_at = time.monotonic()
        kept: list[Json] = []
        for claim, item in zip(self.held, answer["results"], strict=True):
            if item["status"] == "accepted":
                self._note("task.heartbeat", claim, item["sequence"])
                kept.append(claim)
        self.held = kept

    async def _report(self, batch: list[Json]) -> None:
        results = [
            {key: claim[key] for key in _NAME} | {"outcome": "completed", "output": _output(claim)}
            for claim in batch
        ]
        _, answer = await self._voice.say("/v1/results", {"owner": self.owner, "results": results})
        for claim, item in zip(batch, answer["results"], strict=True):
            if item["status"] == "accepted":
                self._note("task.completed", claim, item["sequence"])

    async def _carry_out(self, claim: Json) -> None:
        chance = self._dice.random()
        if chance < 0.05:
            sleeps_s = self._dice.uniform(0, 2 * LEASE_S)
            self._asleep.append((time.monotonic() + sleeps_s, claim))
        elif chance < 0.10:
            await self._own("fail", claim, error_type="dice", retry_in_s=0.05)
        elif chance < 0.15:
            await self._own("release", claim, reason="tired")
        else:
            if chance < 0.5:
                await self._own("start", claim)
            await self._own("complete", claim, output=_output(claim))

    async def _wake_up(self) -> None:
        """Speak again after a sleep: accepted if the task was not taken over, refused otherwise."""
        asleep, self._asleep = self._asleep, []
        for until, claim in asleep:
            if time.monotonic() < until:
                self._asleep.append((until, claim))
            else:
                await self._own("complete", claim, output=_output(claim))

    async def _own(self, word: str, claim: Json, **said: object) -> None:
        path = f"/v1/plans/{claim['plan_id']}/tasks/{claim['task_id']}/{word}"
        body: Json = {"owner": self.owner, "attempt": claim["attempt"], **said}
        status, answer = await self._voice.say(path, body)
        if status == httpx.codes.OK and answer["status"] == "accepted":
            self._note(_TYPES[word], claim, answer["sequence"])
        elif status == httpx.codes.CONFLICT:
            assert answer["code"] == "guard_reject", answer

    def _note(self, kind: str, claim: Json, sequence: int) -> None:
        entry = Acknowledged(
            sequence, kind, claim["plan_id"], claim["task_id"], self.owner, claim["attempt"]
        )
        self._ledger.add(entry)


_NAME = ("plan_id", "task_id", "attempt")
_TYPES = {
    "start": "task.started",
    "complete": "task.completed",
    "fail": "task.failed",
    "release": "task.released",
}


def _output(claim: Json) -> Json:
    return {"attempt": claim["attempt"], "token": claim["fencing_token"]}


def fan(plan_id: str, tasks: int, kind: str = "outside") -> Json:
    """A plan of so many tasks: a start, many in parallel, and an end that waits for all of them.

    Budgets are ample: what is tested is that nothing is lost, not that a budget ends.
    """
    budget = {"kind": kind, "max_retries": 1_000, "max_lost_leases": 1_000}
    middle = [f"t{number}" for number in range(tasks - 2)]
    return {
        "id": plan_id,
        "tasks": [
            {"id": "first", **budget},
            *({"id": task_id, "depends_on": ["first"], **budget} for task_id in middle),
            {"id": "last", "depends_on": middle, **budget},
        ],
    }


async def submit(voice: Voice, ledger: Ledger, plan: Json) -> None:
    """Submit a plan, and put the acknowledgement into the ledger if it is the first."""
    _, answer = await voice.say("/v1/plans", plan)
    if answer["created"]:
        ledger.add(Acknowledged(answer["sequence"], "plan.submitted", plan["id"]))
