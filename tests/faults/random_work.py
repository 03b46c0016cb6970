"""Workers at full speed that send whatever users might: random ids, owners, models, error texts.

Usage: python -m tests.faults.random_work PORT SECONDS CONNECTIONS SEED; a process of its own, so
that it is not what is measured. It submits plans for so long, works off what it submitted, and
prints one JSON object.
"""

import asyncio
import json
import random
import secrets
import sys
import time
from typing import Any

import uvloop

from tests.bench.line import Line

TASKS_PER_PLAN = 50
BACKLOG = 400  # tasks ahead of the workers: enough to keep them busy, not a test of the backlog
CONFLICT = 409

Json = dict[str, Any]


class Work:
    """What all connections share."""

    def __init__(self, dice: random.Random, until: float) -> None:
        self.dice = dice
        self.until = until
        self.submitted = 0
        self.ended = 0
        self.claims = 0
        self.refused = 0

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.until and self.ended >= self.submitted

    def plan(self) -> Json:
        """Nine tasks in ten wait for these workers, the rest for the service's own executor."""
        return {"id": secrets.token_hex(12), "tasks": [self._task() for _ in range(TASKS_PER_PLAN)]}

    def _task(self) -> Json:
        # A failure is retried once, or ends this task and nothing else.
        return {
            "id": secrets.token_hex(10),
            "kind": "echo" if self.dice.random() < 0.1 else "outside",
            "input": {"text": "x" * 100},
            "on_failure": "continue",
            "max_retries": 1,
        }


async def submit(line: Line, work: Work) -> None:
    """Keep a bounded backlog until the time is over."""
    while time.monotonic() < work.until:
        if work.submitted - work.ended > BACKLOG:
            await asyncio.sleep(0.005)
            continue
        plan = work.plan()
        await line.post("/v1/plans", plan)
        work.submitted += sum(task["kind"] == "outside" for task in plan["tasks"])


async def work_on(line: Line, work: Work) -> None:
    """One random owner after the other; one claim in fifty is also written back by a stranger."""
    while not work.over:
        owner = secrets.token_hex(16)
        wish = {"owner": owner, "kinds": ["outside"], "wait_s": 0.2}
        for claim in (await line.post("/v1/claims", wish))["claims"]:
            path = f"/v1/plans/{claim['plan_id']}/tasks/{claim['task_id']}"
            held = {"owner": owner, "attempt": claim["attempt"]}
            work.claims += 1
            await line.post(f"{path}/start", held)
            if work.dice.random() < 0.02:
                status, _ = await line.ask(f"{path}/complete", {**held, "owner": "a-zombie"})
                work.refused += status == CONFLICT
            await _end(line, path, held, claim, work)


async def _end(line: Line, path: str, held: Json, claim: Json, work: Work) -> None:
    spent = {
        "model_name": f"model-{secrets.token_hex(4)}",
        "token_usage": {"input_tokens": 7, "output_tokens": 11, "total_tokens": 18},
    }
    if work.dice.random() < 0.1:
        said = {"error_type": secrets.token_hex(5), "error_message": secrets.token_hex(50)}
        again = claim["retry"] == 0
        told = {**held, **said, **spent, "retryable": again, "retry_in_s": 0.01 if again else None}
        await line.post(f"{path}/fail", told)
        work.ended += not again
    else:
        await line.post(f"{path}/complete", {**held, **spent, "output": claim["input"]})
        work.ended += 1


async def main() -> None:
    """Work for so long, and say how fast."""
    port, seconds, connections, seed = map(int, sys.argv[1:5])
    began, cpu = time.monotonic(), time.process_time()
    work = Work(random.Random(seed), began + seconds)
    lines = [await Line.open(port) for _ in range(connections + 1)]
    await asyncio.gather(submit(lines[-1], work), *(work_on(line, work) for line in lines[:-1]))
    took_s = time.monotonic() - began
    print(  # noqa: T201 - its answer
        json.dumps({
            "tasks": work.ended,
            "claims": work.claims,
            "tasks_per_s": work.ended / took_s,
            "stale_writes_refused": work.refused,
            "generator_cpu": (time.process_time() - cpu) / took_s,
        })
    )  # fmt: skip


if __name__ == "__main__":
    uvloop.run(main())
