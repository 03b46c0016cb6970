"""Asks an instance for work of a kind that there is none of, in a process of its own.

Usage: python -m tests.bench.probe PORT SECONDS. Prints the milliseconds of each answer as JSON.
"""

import asyncio
import json
import sys
import time

import uvloop

from tests.bench.line import Line

EVERY_S = 0.01


async def main() -> None:
    """One call each `EVERY_S`, the next when the last was answered."""
    line, seconds = await Line.open(int(sys.argv[1])), float(sys.argv[2])
    wanted = {"owner": "probe", "limit": 1, "kinds": ["none"], "wait_s": 0}
    until, took_ms = time.perf_counter() + seconds, list[float]()
    while (began := time.perf_counter()) < until:
        await line.post("/v1/claims", wanted)
        took_ms.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(EVERY_S)
    print(json.dumps(took_ms))


uvloop.run(main())
