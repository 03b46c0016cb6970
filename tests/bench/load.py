"""The load generator, in a process of its own, so that it is not what is measured.

Usage: python -m tests.bench.load PORT[,PORT...] MODE TASKS CONNECTIONS. Prints one JSON object. The
clock stops at the last completed task. Connections are shared out among the ports.
"""

import asyncio
import json
import sys
import time
from functools import partial
from typing import Any

import uvloop

from tests.bench.line import Line

TASKS_PER_PLAN = 100
BATCH = 50


async def single(
    line: Line, owner: str, state: dict[str, float], *, start_in_claim: bool = False
) -> None:
    """Claim, start, complete, one call each."""
    wanted: dict[str, Any] = {"owner": owner, "limit": 1, "wait_s": 0.5}
    if start_in_claim:
        wanted["start"] = True
    while state["done"] < state["total"]:
        answer = await line.post("/v1/claims", wanted)
        for claim in answer["claims"]:
            path = f"/v1/plans/{claim['plan_id']}/tasks/{claim['task_id']}"
            held = {"owner": owner, "attempt": claim["attempt"]}
            if not start_in_claim:
                await line.post(f"{path}/start", held)
            await line.post(f"{path}/complete", {**held, "output": claim["input"]})
            state["done"] += 1
            state["ended_at"] = time.perf_counter()


async def batch(line: Line, owner: str, state: dict[str, float]) -> None:
    """Claims of 50, results of 50."""
    while state["done"] < state["total"]:
        answer = await line.post("/v1/claims", {"owner": owner, "limit": BATCH, "wait_s": 0.5})
        results = [
            {
                "plan_id": claim["plan_id"],
                "task_id": claim["task_id"],
                "attempt": claim["attempt"],
                "outcome": "completed",
                "output": claim["input"],
            }
            for claim in answer["claims"]
        ]
        if results:
            told = await line.post("/v1/results", {"owner": owner, "results": results})
            state["done"] += sum(each["status"] == "accepted" for each in told["results"])
            state["ended_at"] = time.perf_counter()


async def main() -> None:
    """Submit the plans, work them off, say how fast."""
    port, mode, tasks, connections = (sys.argv[1], sys.argv[2], *map(int, sys.argv[3:5]))
    worker = {
        "single calls": single,
        "single calls, start in the claim": partial(single, start_in_claim=True),
        "batch calls": batch,
    }[mode]
    ports = [int(each) for each in port.split(",")]
    lines = [await Line.open(ports[n % len(ports)]) for n in range(connections + 1)]
    plan = [
        {"id": f"t{n}", "kind": "bench", "input": {"text": "x" * 120}}
        for n in range(TASKS_PER_PLAN)
    ]
    plans = tasks // TASKS_PER_PLAN
    state: dict[str, float] = {"done": 0, "total": plans * TASKS_PER_PLAN}

    async def submit() -> None:
        for n in range(plans):
            await lines[-1].post("/v1/plans", {"id": f"p{n}", "tasks": plan})

    began, cpu = time.perf_counter(), time.process_time()
    work = (worker(lines[n], f"w{n}", state) for n in range(connections))
    await asyncio.gather(submit(), *work)
    took_s, cpu = state["ended_at"] - began, time.process_time() - cpu
    print(
        json.dumps(
            {
                "tasks_per_s": state["done"] / took_s,
                "generator_cpu": cpu / took_s,
                "generator_cpu_us_per_task": cpu / state["done"] * 1e6,
            }
        )
    )


uvloop.run(main())
