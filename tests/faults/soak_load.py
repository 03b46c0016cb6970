"""Plans of all shapes and the workers for them, at a bounded rate, across restarts of a service.

Usage: python -m tests.faults.soak_load PORT TASKS_PER_S; a process of its own. Most tasks are in
wide plans, at that rate, and are claimed and reported in batches; the others are in plans of the
shapes of `plan_shapes`, a few of which are unfinished at any time. It prints how many tasks have
ended, each second. When its standard input ends it submits nothing more; it ends when everything
that it submitted has ended.
"""

import asyncio
import itertools
import random
import sys
import time
from contextlib import suppress
from typing import Any

import uvloop

from tests.bench.line import Line
from tests.faults.plan_shapes import shapes

WIDE = 50  # tasks of a wide plan
BATCH = 50  # tasks of a claim
BACKLOG = 1_000  # tasks ahead of the workers, at most
CREWS, SHAPERS = 4, 6
LEASE_S = 5.0  # what a claim holds whose answer was lost with the service
PAUSE_S = 0.05
PATIENCE_S = 60.0
UNFINISHED = ("READY", "RUNNING", "PAUSED")
REFUSED, TROUBLE = 400, 500

Json = dict[str, Any]


class Refused(Exception):
    """A 4xx: what was asked for, the status, the answer."""


class Voice:
    """One connection that is opened again, and a request that is repeated, until it is answered."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._line: Line | None = None

    async def say(self, path: str, body: Json | None = None) -> Json:
        """The answer to a POST of ``body``, or to a GET; raises Refused for a 4xx."""
        while True:
            try:
                if self._line is None:
                    self._line = await Line.open(self._port)
                status, answer = await self._line.ask(path, body)
            except (OSError, EOFError):
                self._line = None
            else:
                if status < REFUSED:
                    return answer
                if status < TROUBLE:
                    raise Refused(path, status, answer)
            await asyncio.sleep(PAUSE_S)


class Soak:
    """What all connections share."""

    def __init__(self, port: int, tasks_per_s: float) -> None:
        self.ended = 0
        self._port = port
        self._rate = tasks_per_s
        self._began = time.monotonic()
        self._over = asyncio.Event()
        self._submitted = 0  # of wide plans
        self._reported = 0
        self._plans = shapes(random.Random(1))

    async def run(self) -> None:
        """Everything, to the end of its last plan."""
        async with asyncio.TaskGroup() as group:
            printing = group.create_task(self._print())
            ending = group.create_task(self._hear())
            crews = [group.create_task(self._crew(n)) for n in range(CREWS)]
            async with asyncio.TaskGroup() as submitting:
                submitting.create_task(self._wide())
                for _ in range(SHAPERS):
                    submitting.create_task(self._shaped())
            async with asyncio.timeout(PATIENCE_S):
                while self._reported < self._submitted:
                    await asyncio.sleep(PAUSE_S)
            for each in (printing, ending, *crews):
                each.cancel()
        print(self.ended, flush=True)  # noqa: T201 - its answer

    async def _hear(self) -> None:
        """Wait for the end of standard input."""
        stdin = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
        await stdin.read()
        self._over.set()

    async def _print(self) -> None:
        while True:
            print(self.ended, flush=True)  # noqa: T201 - its answer
            await asyncio.sleep(1)

    async def _wide(self) -> None:
        """Wide plans, as many as the rate wants, and no more than the workers do."""
        voice = Voice(self._port)
        for number in itertools.count():
            due = self._began + self._submitted / self._rate
            while time.monotonic() < due or self._submitted - self._reported > BACKLOG:
                if self._over.is_set():
                    return
                await asyncio.sleep(0.005)
            if self._over.is_set():
                return
            tasks = [
                {"id": f"t{n}", "kind": "wide", "input": {"text": "x" * 100}, "max_retries": 20}
                for n in range(WIDE)
            ]
            await voice.say("/v1/plans", {"id": f"wide-{number}", "tasks": tasks})
            self._submitted += WIDE

    async def _crew(self, number: int) -> None:
        """Work off wide plans in batches, and what workers outside do in the others."""
        voice, owner = Voice(self._port), f"crew-{number}"
        dice = random.Random(number)
        while True:
            wish = {"owner": owner, "kinds": ["wide", "outside"], "limit": BATCH, "wait_s": 0.5}
            claims = (await voice.say("/v1/claims", wish | {"lease_s": LEASE_S}))["claims"]
            if not claims:
                continue
            results = [_result(claim, dice) for claim in claims]
            told = await voice.say("/v1/results", {"owner": owner, "results": results})
            for claim, result, item in zip(claims, results, told["results"], strict=True):
                if item["status"] in {"accepted", "duplicate"} and result["outcome"] == "completed":
                    wide = claim["plan_id"].startswith("wide-")
                    self._reported += wide
                    self.ended += wide

    async def _shaped(self) -> None:
        """One plan of another shape after the other, each to its end."""
        voice = Voice(self._port)
        while not self._over.is_set():
            plan = next(self._plans)
            await voice.say("/v1/plans", plan)
            path = f"/v1/plans/{plan['id']}"
            if plan["id"].endswith("-cancelled"):
                await voice.say(f"{path}/cancel", {"reason": "no longer wanted"})
            async with asyncio.timeout(PATIENCE_S):
                with suppress(Refused):  # it ended, and was forgotten since
                    while (await voice.say(path))["status"] in UNFINISHED:
                        await asyncio.sleep(PAUSE_S)
            self.ended += len(plan["tasks"])


def _result(claim: Json, dice: random.Random) -> Json:
    """Mostly done; some fail or are given back once."""
    named = {name: claim[name] for name in ("plan_id", "task_id", "attempt")}
    if claim["attempt"] == 1 and (roll := dice.random()) < 0.02:
        if roll < 0.01:
            return {**named, "outcome": "released"}
        return {**named, "outcome": "failed", "error_type": "x", "retry_in_s": 0.1}
    if claim.get("type") == "critic":
        verdict = {"pass": dice.random() < 0.7, "feedback": "again"}
        return {**named, "outcome": "completed", "verdict": verdict}
    return {**named, "outcome": "completed", "output": claim["input"]}


if __name__ == "__main__":
    uvloop.run(Soak(int(sys.argv[1]), float(sys.argv[2])).run())
