"""While an instance reads its log, probes are answered with how far it is, all else with 503."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from projections.board.board import Board
from projections.board.lanes import SharingRule
from projections.projector import Projector
from projections.read_models.database import Database
from projections.read_models.restore import open_read_models
from service.core.catching_up import HowFar, caught_up
from service.http.server import Listening
from service.http.starting import Starting
from service.settings.config import Settings
from service.settings.loading import load_settings
from streams.log import BadFact, Draft, Fact
from streams.plan.events import Submitted, TaskSpec
from tests.memory_log import MemoryLog

FAR = HowFar(start=0, sequence=1_200_000, head=5_000_000, took_s=15.0)


def settings_in(folder: Path, **flags: object) -> Settings:
    return load_settings(environment={}, flags={"data_dir": str(folder), "http.port": 0, **flags})


@pytest.fixture
async def started(tmp_path: Path) -> AsyncIterator[tuple[Listening, Starting]]:
    settings = settings_in(tmp_path)
    listening = Listening(settings.http)
    starting = Starting(listening, settings)
    yield listening, starting
    await starting.stop()
    listening.socket.close()


async def test_probes_say_how_far_it_is_and_other_requests_when_to_come_again(
    started: tuple[Listening, Starting],
) -> None:
    listening, starting = started
    starting.tell(FAR)
    async with httpx.AsyncClient(base_url=listening.url, timeout=20) as client:
        alive, ready = await client.get("/healthz"), await client.get("/readyz")
        assert (alive.status_code, ready.status_code) == (200, 503)
        (check,) = ready.json()["checks"]
        for part in ("1,200,000 of 5,000,000 events", "80,000 a second", "about 48 s are left"):
            assert part in check["detail"]
        refused = await client.post("/v1/claims", json={})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "48")
        assert refused.json()["code"] == "unavailable"
        stranger = await client.get("/readyz", headers={"Host": "elsewhere.example"})
        assert stranger.status_code == 403


async def test_the_port_stays_taken_for_the_server_that_follows(
    started: tuple[Listening, Starting],
) -> None:
    listening, starting = started
    starting.tell(FAR)
    async with httpx.AsyncClient(timeout=20) as client:
        assert (await client.get(f"{listening.url}/healthz")).status_code == 200
    await starting.stop()

    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        writer.close()

    waiting = asyncio.create_task(asyncio.to_thread(httpx.get, listening.url, timeout=20))
    following = await asyncio.start_server(say, sock=listening.socket)
    assert (await waiting).status_code == 204
    following.close()


def test_before_anything_is_read_no_time_is_promised() -> None:
    begun = HowFar(start=0, sequence=0, head=10, took_s=1.0)
    assert begun.left_s is None
    assert "left" not in str(begun)


class SlowLog(MemoryLog):
    """It brings two facts at a time, whenever `more` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.more = asyncio.Event()

    async def follow(self, after: int) -> AsyncIterator[list[Fact | BadFact]]:
        while True:
            await self.more.wait()
            self.more.clear()
            yield (batch := await self.scan(after, 2))
            after = batch[-1].sequence


class Reading:
    """The parts of a core that a start needs."""

    def __init__(self, log: MemoryLog, database: Database) -> None:
        self.log = log
        self.board = Board(SharingRule(), "a")
        self.board.is_placing = False
        self.projector = Projector(
            log,
            self.board,
            database,
            epoch=log.epoch,
            now=time.time,
            observe_times=lambda _: None,
        )


async def test_a_start_tells_how_far_it_is_until_all_is_read_and_placed(tmp_path: Path) -> None:
    log = SlowLog()
    plan = Submitted(tasks=(TaskSpec(id="t", kind="k"),))
    for n in range(6):
        await log.append(Draft(plan_id=f"p{n}", task_id=None, expected=0, events=(plan,)))
    database = await open_read_models(tmp_path / "x.sqlite")
    core, told = Reading(log, database), list[HowFar]()

    def tell(how_far: HowFar) -> None:
        told.append(how_far)
        log.more.set()

    following = asyncio.create_task(core.projector.run())
    died: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(20):
        await caught_up(core, 6, died, tell, show_s=0.01)  # type: ignore[arg-type]  # see Reading
    following.cancel()
    await asyncio.wait([following])
    await database.close()
    sequences = [each.sequence for each in told]
    assert sequences == sorted(sequences)
    assert (sequences[0], core.board.sequence, core.board.places.claimable) == (0, 6, 6)
