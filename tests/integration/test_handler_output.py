"""What a handler prints goes to its process's own output: it fills no memory and costs no lease."""

import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from holdfast_worker import Client, Event
from service.runtime.child_process import dying_with_parent
from tests.faults.service_process import ROOT, ServiceProcess, environment
from tests.integration.loud_worker import MEBIBYTE
from tests.waiting import eventually

MODULE = "tests.integration.loud_worker"
LEASE_S = 1.5
RENEWALS = 6  # two leases
GIBIBYTE = 1024  # in mebibytes
ROOM = 64 * MEBIBYTE


class Reader:
    """Reads the output of a process, and stops for a while after ``pause_after`` bytes."""

    def __init__(self, pause_after: int) -> None:
        self._end, self.write_end = os.pipe()
        self._pause_after = pause_after
        self.seen = 0
        self.paused = threading.Event()
        self.go_on = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while got := os.read(self._end, 2**16):
            self.seen += len(got)
            if self.seen > self._pause_after and not self.go_on.is_set():
                self.paused.set()
                self.go_on.wait()
        os.close(self._end)


@pytest.fixture(params=["in the executor", "in a worker"])
def printing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Reader]]:
    """The address of a service whose tasks print, and what reads the output of their process."""
    reader = Reader(8 * MEBIBYTE)
    inside = request.param == "in the executor"
    handlers = {"executor__handlers": f'["{MODULE}"]'} if inside else {}
    service = ServiceProcess(tmp_path / "data", **handlers)
    with ExitStack() as stack:
        stack.callback(reader.go_on.set)
        stack.callback(service.stop)
        if inside:
            service.launch_anew(stdout=reader.write_end)
            os.close(reader.write_end)
        else:
            service.launch()
        service.await_ready()
        if not inside:
            worker = subprocess.Popen(
                dying_with_parent(sys.executable, "-m", MODULE),
                cwd=ROOT,
                env=environment()
                | {
                    "PYTHONPATH": f"{ROOT}:{ROOT}/service/worker_kit/src",
                    "HOLDFAST_URL": service.url,
                },
                stdout=reader.write_end,
                stderr=subprocess.DEVNULL,
            )
            os.close(reader.write_end)
            stack.callback(worker.wait, 20)
            stack.callback(worker.kill)
        yield service.url, reader


async def test_a_handler_prints_a_gigabyte_into_a_pipe_that_is_not_read_for_a_while(
    printing: tuple[str, Reader],
) -> None:
    url, reader = printing

    async def submit(mebibytes: int) -> str:
        task = {"id": "t", "kind": "prints", "input": mebibytes, "lease_s": LEASE_S}
        return (await client.submit({"tasks": [task]})).plan_id

    async with Client(url) as client:
        before = (await client.wait(await submit(1))).task("t").output
        plan_id = await submit(GIBIBYTE)
        await eventually(reader.paused.is_set, "the reader has stopped")
        renewed = [each async for each in _heartbeats(client, plan_id, RENEWALS)]
        assert len(renewed) == RENEWALS, "its lease is renewed meanwhile"
        reader.go_on.set()
        plan = await client.wait(plan_id)
    task = plan.task("t")
    assert (task.status, task.attempt, task.lost) == ("COMPLETED", 1, 0)
    assert reader.seen >= GIBIBYTE * MEBIBYTE
    assert task.output < before + ROOM


async def _heartbeats(client: Client, plan_id: str, count: int) -> AsyncIterator[int]:
    """The sequences of the first so many renewals of a plan's only task."""
    async for event in client.events(plan_id, types=["task.heartbeat"]):
        if isinstance(event, Event):
            yield event.sequence
            count -= 1
        if not count:
            return
