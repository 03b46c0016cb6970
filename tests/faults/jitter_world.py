"""A service at work on ground that a test can shake: a slow network, a slow or full disk, a lock.

NATS stands behind a proxy, SQLite on a small disk of its own, and every write to it can be made to
wait. Meanwhile `Watch` asks what an operator would: /readyz, the doctor, the metrics.
"""

import asyncio
import json
import os
import random
import shutil
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
import nats
from prometheus_client.parser import text_string_to_metric_families

from service.runtime.data_folder import READ_MODELS
from tests import identities
from tests.conftest import PrivateServer
from tests.faults.crew import Ledger, Voice, Worker, fan, submit
from tests.faults.delaying_proxy import DelayingProxy
from tests.faults.service_process import ServiceProcess

DISK_BYTES = 128 * 1024 * 1024
TASKS_PER_PLAN = 20
WORKERS = 4
POLL_S = 0.1
SCRAPE_S = 0.5
DOCTOR_S = 1.0
MIB = 1024 * 1024

Samples = dict[str, float]


def _program(name: str) -> str:
    found = shutil.which(name)
    assert found, f"there is no {name}"
    return found


def build_slow_disk(folder: Path) -> Path:
    """The library of slow_disk.c, compiled."""
    library = folder / "slow_disk.so"
    source = Path(__file__).with_name("slow_disk.c")
    subprocess.run(
        [
            _program("gcc"),
            "-shared",
            "-fPIC",
            "-O2",
            "-Wall",
            "-Werror",
            "-o",
            str(library),
            str(source),
        ],
        check=True,
        timeout=60,
    )
    return library


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """``folder`` as a disk of `DISK_BYTES`; needs root."""
    folder.mkdir()
    size = f"size={DISK_BYTES},mode=0700"
    subprocess.run([_program("mount"), "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run([_program("umount"), "-l", str(folder)], check=True)


class Ground:
    """What the service stands on, and every way to shake it and to let it rest again."""

    def __init__(self, server: PrivateServer, disk: Path, control: Path) -> None:
        self.server = server
        self.proxy = DelayingProxy(server.url)
        self._disk = disk
        self._control = control
        self._locked: sqlite3.Connection | None = None

    def stop(self) -> None:
        """Let everything go."""
        self.unlock_database()
        self.proxy.stop()
        self.server.resume()

    def lock_database(self) -> None:
        """As a backup or a tool that holds the write lock."""
        self._locked = sqlite3.connect(self._disk / READ_MODELS, timeout=10)
        self._locked.execute("BEGIN EXCLUSIVE")

    def unlock_database(self) -> None:
        if self._locked is not None:
            self._locked.close()
            self._locked = None

    def slow_disk(self, ms: int = 200) -> None:
        """Each write to SQLite's files waits so long."""
        self._control.write_text(str(ms))

    def quick_disk(self) -> None:
        self._control.unlink()

    def fill_disk(self) -> None:
        """Nothing more can be written to SQLite's files."""
        with suppress(OSError), self._ballast.open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(MIB))
        with suppress(OSError), self._ballast.open("ab", buffering=0) as ballast:
            while True:
                ballast.write(bytes(512))

    def empty_disk(self) -> None:
        self._ballast.unlink()

    @property
    def _ballast(self) -> Path:
        return self._disk / "ballast"

    def slow_network(self, delay_s: float = 0.3) -> None:
        """Every answer of NATS comes so late."""
        self.proxy.delay_s = delay_s

    def quick_network(self) -> None:
        self.proxy.delay_s = 0.0

    async def fill_log(self) -> None:
        """The stream takes no more facts."""
        info = await self._stream("INFO", b"")
        await self._limit(info, info["state"]["bytes"] + 1)

    async def make_room_in_log(self) -> None:
        await self._limit(await self._stream("INFO", b""), -1)

    async def _limit(self, info: dict[str, Any], max_bytes: int) -> None:
        config = {**info["config"], "max_bytes": max_bytes}
        await self._stream("UPDATE", json.dumps(config).encode())

    async def _stream(self, verb: str, body: bytes) -> dict[str, Any]:
        connection = await nats.connect(self.server.url, allow_reconnect=False)
        try:
            reply = await connection.request(f"$JS.API.STREAM.{verb}.PLANS", body, timeout=5)
        finally:
            await connection.close()
        answer = json.loads(reply.data)
        assert "error" not in answer, answer
        return answer


class Crew:
    """Workers who never give up, and plans that keep coming until `finish`."""

    def __init__(self, service: ServiceProcess, seed: int) -> None:
        self.ledger = Ledger()
        self.voice = Voice(lambda: service.url)
        self.plans: list[str] = []
        self.owners = frozenset(f"w{n}" for n in range(WORKERS))
        self._service = service
        self._seed = seed
        self._tasks: list[asyncio.Task[None]] = []
        self._enough = asyncio.Event()

    def start(self) -> None:
        """Begin to submit and to work."""
        workers = [
            Worker(owner, self.voice, self.ledger, random.Random(f"{self._seed} {owner}"), 4)
            for owner in sorted(self.owners)
        ]
        self._tasks = [asyncio.create_task(worker.work()) for worker in workers]
        self._feeding = asyncio.create_task(self._feed())

    async def _feed(self) -> None:
        async with httpx.AsyncClient(timeout=10) as client:
            while not self._enough.is_set():
                self.plans.append(f"p{len(self.plans)}")
                plan = fan(self.plans[-1], TASKS_PER_PLAN)
                plan["tasks"].append({"id": "inside", "kind": "echo", "depends_on": ["first"]})
                await submit(self.voice, self.ledger, plan)
                await self._ended(client, self.plans[-1])

    async def _ended(self, client: httpx.AsyncClient, plan_id: str) -> None:
        while True:
            self._complain()
            with suppress(httpx.TransportError):
                answer = await client.get(f"{self._service.url}/v1/plans/{plan_id}")
                if answer.status_code == httpx.codes.OK and answer.json()["finished_at"]:
                    return
            await asyncio.sleep(POLL_S)

    def _complain(self) -> None:
        for task in self._tasks:
            if task.done():
                task.result()

    async def speaks(self, since: float) -> None:
        """Wait until something that was asked after ``since`` (monotonic) has been answered."""
        while self.voice.newest_asked <= since:
            self._complain()
            await asyncio.sleep(POLL_S / 10)

    async def finish(self) -> None:
        """No more plans; wait until all are done."""
        self._enough.set()
        await self._feeding
        await self.stop()

    async def stop(self) -> None:
        for task in (self._feeding, *self._tasks):
            task.cancel()
        await asyncio.gather(self._feeding, *self._tasks, return_exceptions=True)
        await self.voice.close()


class Seen(msgspec.Struct, frozen=True):
    """From ``at`` (seconds since the watch began) on, this is what was said."""

    at: float
    what: tuple[str, ...]


class Watch:
    """What can be seen from outside, as it changes."""

    def __init__(self, url: str) -> None:
        self.readiness: list[Seen] = []
        self.diagnoses: list[Seen] = []
        self.most: Samples = {}
        self.blind_scrapes = 0
        self._url = url
        self._began = time.monotonic()
        self._client = httpx.AsyncClient(base_url=url, timeout=5)

    @property
    def now(self) -> float:
        return time.monotonic() - self._began

    async def look(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._repeat(self._ask_readiness, POLL_S))
                group.create_task(self._repeat(self._ask_doctor, DOCTOR_S))
                group.create_task(self._repeat(self._look_at_metrics, SCRAPE_S))
        finally:
            await self._client.aclose()

    async def _repeat(self, ask: Any, period_s: float) -> None:
        while True:
            await ask()
            await asyncio.sleep(period_s)

    async def _ask_readiness(self) -> None:
        answer = (await self._client.get("/readyz")).json()
        _note(self.readiness, self.now, answer["failing"])

    async def _ask_doctor(self) -> None:
        answer = (await self._client.get("/v1/ops/doctor")).json()
        _note(self.diagnoses, self.now, [finding["code"] for finding in answer["findings"]])

    async def _look_at_metrics(self) -> None:
        try:
            samples = await self.metrics()
        except httpx.TransportError:
            self.blind_scrapes += 1
            return
        for name, value in samples.items():
            self.most[name] = max(value, self.most.get(name, value))

    async def metrics(self) -> Samples:
        """Every sample now, by its name with its labels."""
        return samples_of(await self._metrics_text())

    async def scrape(self) -> identities.Snapshot:
        """The same, to be held against the identities."""
        return identities.Snapshot(await self._metrics_text())

    async def _metrics_text(self) -> str:
        return (await self._client.get("/metrics")).raise_for_status().text

    def first(self, seen: list[Seen], what: str, since: float) -> float | None:
        """Seconds from ``since`` until ``what`` was said."""
        moments = [each.at - since for each in seen if each.at >= since and what in each.what]
        return min(moments, default=None)


def _note(seen: list[Seen], at: float, what: list[str]) -> None:
    now = tuple(sorted(set(what)))
    if not seen or seen[-1].what != now:
        seen.append(Seen(at, now))


def samples_of(text: str) -> Samples:
    """The samples of a Prometheus text."""
    return {
        _name(sample.name, sample.labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _name(name: str, labels: dict[str, str]) -> str:
    shown = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    return f"{name}{{{shown}}}" if shown else name


def moved(before: Samples, after: Samples) -> Counter[str]:
    """By how much each counter has grown."""
    grown = {
        name: after[name] - before.get(name, 0.0)
        for name in after
        if "_total" in name and after[name] != before.get(name, 0.0)
    }
    return Counter({name: round(by) for name, by in grown.items()})


def can_mount() -> bool:
    """Whether this process may put a small disk somewhere."""
    return os.geteuid() == 0
