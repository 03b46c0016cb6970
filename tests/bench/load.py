"""The load generator: keep-alive HTTP/1.1 over raw streams, so that it is not what is measured.

Usage: python -m tests.bench.load PORT single|batch TASKS CONNECTIONS. Prints one JSON object.
"""

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import msgspec
import uvloop

TASKS_PER_PLAN = 100
BATCH = 50


class Line:
    """One connection; `post` sends a request and reads its answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> "Line":
        """Connect to loopback."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=2**22))

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The decoded answer; anything but 2xx is an error."""
        content = msgspec.json.encode(body)
        self._writer.write(
            b"POST %b HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (path.encode(), len(content), content)
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        start = lower.index(b"content-length:") + 15
        length = int(lower[start : lower.index(b"\r", start)])
        answer = msgspec.json.decode(await self._reader.readexactly(length))
        if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 201")):
            raise RuntimeError(head, answer)
        return answer


async def single(line: Line, owner: str, state: dict[str, int]) -> None:
    """Claim, start, complete, one call each."""
    while state["done"] < state["total"]:
        answer = await line.post("/v1/claims", {"owner": owner, "limit": 1, "wait_s": 0.5})
        for claim in answer["claims"]:
            path = f"/v1/plans/{claim['plan_id']}/tasks/{claim['task_id']}"
            held = {"owner": owner, "attempt": claim["attempt"]}
            await line.post(f"{path}/start", held)
            await line.post(f"{path}/complete", {**held, "output": claim["input"]})
            state["done"] += 1


async def batch(line: Line, owner: str, state: dict[str, int]) -> None:
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


async def main() -> None:
    """Submit the plans, work them off, say how fast."""
    port, mode, tasks, connections = (sys.argv[1], sys.argv[2], *map(int, sys.argv[3:5]))
    worker = {"single": single, "batch": batch}[mode]
    lines = [await Line.open(int(port)) for _ in range(connections + 1)]
    plan = [
        {"id": f"t{n}", "kind": "bench", "input": {"text": "x" * 120}}
        for n in range(TASKS_PER_PLAN)
    ]
    plans = tasks // TASKS_PER_PLAN
    state = {"done": 0, "total": plans * TASKS_PER_PLAN}

    async def submit() -> None:
        for n in range(plans):
            await lines[-1].post("/v1/plans", {"id": f"p{n}", "tasks": plan})

    began, cpu = time.perf_counter(), time.process_time()
    work = (worker(lines[n], f"w{n}", state) for n in range(connections))
    await asyncio.gather(submit(), *work)
    took_s = time.perf_counter() - began
    print(
        json.dumps(
            {
                "tasks_per_s": state["done"] / took_s,
                "generator_cpu": (time.process_time() - cpu) / took_s,
            }
        )
    )


uvloop.run(main())
