"""Work that was paid for is not paid for twice, though workers and the service are killed."""

import asyncio
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from holdfast_worker import Client
from holdfast_worker.testing import Server
from service.runtime.child_process import dying_with_parent
from tests.faults.service_process import ROOT
from tests.integration.fake_model import FakeModel, Message
from tests.integration.kit_world import WorkerProgram
from tests.waiting import eventually

LEASE_S = 6.0  # longer than the service needs to start again


def last(messages: list[Message]) -> str:
    return str(messages[-1]["content"])


def book_worker(model: FakeModel, url: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        dying_with_parent(sys.executable, "-m", "examples.resume"),
        cwd=ROOT,
        env=os.environ | {"MODEL_URL": model.url, "HOLDFAST_URL": url},
        stderr=subprocess.DEVNULL,
    )


async def test_a_job_resumes_after_its_worker_was_killed() -> None:
    with FakeModel(lambda messages: {"content": last(messages)}) as model, Server() as server:
        async with Client(server.url) as client:
            task: dict[str, Any] = {"id": "t", "kind": "book", "input": "rivers"}
            first = book_worker(model, server.url)
            plan_id = (await client.submit({"tasks": [task]})).plan_id
            await eventually(lambda: len(model.calls) >= 4, "four chapters are written")
            first.send_signal(signal.SIGKILL)
            await asyncio.to_thread(first.wait, 10)
            second = book_worker(model, server.url)
            try:
                plan = await client.wait(plan_id)
            finally:
                second.terminate()
                await asyncio.to_thread(second.wait, 20)
    assert plan.status == "COMPLETED"
    assert plan.task("t").attempt == 2
    assert plan.task("t").output == {"words": 10 * 7, "lines": 2_000}
    assert 10 <= sum(model.calls.values()) <= 11


@pytest.mark.timeout(120)
async def test_forty_calls_are_paid_once_though_workers_and_the_service_are_killed() -> None:
    """Two workers and the service are killed while a call is under way: 40 to 42 calls."""
    with FakeModel(lambda _: {"content": "x"}) as model, Server() as server:
        async with Client(server.url) as client:
            wish = {"model_url": model.url, "calls": 40}
            task = {"id": "t", "kind": "asks_a_model", "input": wish}
            plan_id = (await client.submit({"tasks": [task]})).plan_id
            for calls in (13, 27):
                with WorkerProgram(server.url, "agent", LEASE_S) as worker:
                    if calls == 27:
                        await eventually(lambda: model.total() >= 20, "20 calls")
                        await asyncio.to_thread(server.kill)
                        await asyncio.to_thread(server.start)
                    await eventually(lambda calls=calls: model.total() >= calls, f"{calls} calls")
                    worker.process.send_signal(signal.SIGKILL)
            with WorkerProgram(server.url, "agent", LEASE_S):
                plan = await client.wait(plan_id)
    assert plan.status == "COMPLETED"
    assert plan.task("t").output == ["x"] * 40
    # One call may be under way when an attempt ends: 42 with the two that were killed, and one more
    # where the service needed longer to start again than the lease allows.
    attempts = plan.task("t").attempt
    assert attempts in (3, 4)
    assert 40 <= model.total() <= 40 + attempts - 1
