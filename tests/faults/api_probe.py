"""Asks the API again and again from a process of its own, and says how long the answers took.

    python -m tests.faults.api_probe URL PATH

It ends when its input does, and prints one line of JSON.
"""

import asyncio
import http.client
import json
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from tests.faults.service_process import ROOT

PAUSE_S = 0.02


class Answers(msgspec.Struct):
    """How many questions were answered 200, how many were not, and seconds to an answer."""

    good: int = 0
    bad: int = 0
    p50_s: float = 0.0
    p99_s: float = 0.0
    worst_s: float = 0.0


@asynccontextmanager
async def probing(url: str, path: str) -> AsyncIterator[Answers]:
    """Ask all through the block; what was found stands in the answer after it."""
    found = Answers()
    probe = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.api_probe", url, path,
        cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert probe.stdout is not None
        await probe.stdout.readline()  # it has its first answer
        yield found
    finally:
        said, _ = await probe.communicate(b"")
        for name, value in json.loads(said).items():
            setattr(found, name, value)


def main(url: str, path: str) -> None:
    """Ask until the input ends."""
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    found, took = Answers(), []
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    while not took or not over.is_set():
        began = time.monotonic()
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            good = answer.status == http.client.OK
        except OSError:
            connection.close()
            good = False
        took.append(time.monotonic() - began)
        found.good += good
        found.bad += not good
        if len(took) == 1:
            print("asking", flush=True)  # noqa: T201
        over.wait(PAUSE_S)
    took.sort()
    found.p50_s, found.p99_s = took[len(took) // 2], took[len(took) * 99 // 100]
    found.worst_s = took[-1]
    print(json.dumps(msgspec.to_builtins(found)))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
