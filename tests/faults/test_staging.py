"""Batches that are put together in memory: nothing acknowledged is lost, whatever ends."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from shutil import rmtree
from typing import Any

import httpx
import pytest
from msgspec import Raw
from structlog.testing import capture_logs

from service.runtime.data_folder import READ_MODELS
from service.runtime.nats_server import staging
from service.runtime.nats_server.embedded import STORE_FOLDER, EmbeddedServer
from service.runtime.nats_server.process import EmbeddedServerError
from service.runtime.nats_server.staging import BATCHES, STREAM_FOLDERS, Staging
from streams.jetstream.log import JetStreamLog
from streams.plan.events import Completed
from tests.appending import append
from tests.faults.service_process import ServiceProcess, run_holdfast
from tests.waiting import eventually, until

TASKS = 40  # more than are written one by one
DONE = Completed(owner="w", attempt=1, output=Raw(b'{"said":"done"}'))


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    """It need not be in memory for what is tested here."""
    return tmp_path / "memory"


@pytest.fixture
async def server(tmp_path: Path, memory: Path) -> AsyncIterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path / "data", 0, staging_dir=memory)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def log(server: EmbeddedServer) -> AsyncIterator[JetStreamLog]:
    log = await JetStreamLog.connect(server.url)
    yield log
    await log.close()


def place_of_batches(data_dir: Path) -> Path:
    (stream,) = (data_dir / STORE_FOLDER).glob(STREAM_FOLDERS)
    return stream / BATCHES


async def linked(data_dir: Path) -> Path:
    """Where the server's way to its batches leads, once it leads there."""
    place = place_of_batches(data_dir)
    await eventually(place.is_symlink, "batches go to memory")
    return place.readlink()


async def write_batch(log: JetStreamLog, plan_id: str, expected: int = 0) -> list[int]:
    """One fact of each of many tasks, all at once."""
    tasks = (append(log, plan_id, f"t{n}", expected, DONE) for n in range(TASKS))
    return await asyncio.gather(*tasks)


async def test_batches_are_put_together_in_the_folder(
    tmp_path: Path, memory: Path, log: JetStreamLog
) -> None:
    folder = await linked(tmp_path / "data")
    assert folder.parent == memory
    before = folder.stat().st_mtime_ns
    await write_batch(log, "p")
    assert folder.stat().st_mtime_ns > before
    assert list(folder.iterdir()) == []


async def test_batches_that_came_first_are_written_to_their_end(
    tmp_path: Path, log: JetStreamLog
) -> None:
    place = place_of_batches(tmp_path / "data")
    await eventually(place.is_symlink, "batches go to memory")
    place.unlink()
    (place / "under-way").mkdir(parents=True)
    await write_batch(log, "p")
    assert not place.is_symlink()
    (place / "under-way").rmdir()
    await linked(tmp_path / "data")
    await write_batch(log, "q")


async def test_after_each_start_of_the_server_they_go_there_again(
    tmp_path: Path, server: EmbeddedServer, log: JetStreamLog
) -> None:
    folder = await linked(tmp_path / "data")
    await write_batch(log, "p")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    (folder / "left").mkdir()
    await eventually(lambda: server.restarts, "the server is back")
    assert await linked(tmp_path / "data") == folder
    assert not (folder / "left").exists()
    assert len(await write_batch(log, "q")) == TASKS


async def test_a_full_memory_is_left_alone_until_it_has_room(
    tmp_path: Path,
    server: EmbeddedServer,
    log: JetStreamLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = place_of_batches(tmp_path / "data")
    await linked(tmp_path / "data")
    monkeypatch.setattr(staging, "has_room", lambda _: False)
    assert server.pid is not None
    with capture_logs() as lines:
        os.kill(server.pid, signal.SIGKILL)
        await eventually(lambda: server.restarts, "the server is back")
        assert len(await write_batch(log, "p")) == TASKS
        await eventually(lambda: [each for each in lines if each["event"] == "batches_on_disk"])
    assert not place.is_symlink()
    monkeypatch.undo()
    await linked(tmp_path / "data")


def a_file(memory: Path) -> None:
    memory.write_text("")


def of_others(memory: Path) -> None:
    memory.mkdir(mode=0o755)


def a_link(memory: Path) -> None:
    elsewhere = memory.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    memory.symlink_to(elsewhere)


@pytest.mark.parametrize("make", [a_file, of_others, a_link])
async def test_a_folder_that_is_not_ours_alone_is_refused(
    tmp_path: Path, memory: Path, make: Callable[[Path], None]
) -> None:
    make(memory)
    with pytest.raises(EmbeddedServerError, match=rf"nats\.staging_dir: .*{memory.name}"):
        await EmbeddedServer(tmp_path / "data", 0, staging_dir=memory).start()


def test_two_stores_have_a_folder_each(tmp_path: Path, memory: Path) -> None:
    one, other = (Staging(tmp_path / name, memory) for name in ("one", "other"))
    assert one.folder != other.folder
    assert one.folder == Staging(tmp_path / "." / "one", memory).folder


# -- the power fails ------------------------------------------------------------------------


@pytest.fixture
def service(tmp_path: Path, memory: Path) -> Iterator[ServiceProcess]:
    service = ServiceProcess(tmp_path / "data", nats__staging_dir=str(memory))
    yield service
    service.stop()


def log_block(data_dir: Path) -> Path:
    (block,) = (place_of_batches(data_dir).parent / "msgs").glob("*.blk")
    return block


def cut_power(service: ServiceProcess, memory: Path, left_bytes: int) -> None:
    """End all at once; of the log's last write so much is on the disk, and of memory nothing.

    Rows are not synced, so the read models may be as old as any: here they are gone.
    """
    service.kill()
    block = log_block(service.data_dir)
    os.truncate(block, left_bytes)
    (block.parent / "index.db").unlink(missing_ok=True)
    rmtree(memory)
    for file in service.data_dir.glob(f"{READ_MODELS}*"):
        file.unlink()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.93])
def test_of_a_batch_that_was_being_written_a_part_may_stay_and_nothing_else_is_lost(
    service: ServiceProcess, memory: Path, share: float
) -> None:
    service.start()
    until(place_of_batches(service.data_dir).is_symlink, what="batches go to memory")
    plan = {"id": "p", "tasks": [{"id": f"t{n}", "kind": "k"} for n in range(TASKS)]}
    with httpx.Client(base_url=service.url) as client:
        client.post("/v1/plans", json=plan).raise_for_status()
        asked = {"owner": "w", "limit": TASKS, "lease_s": 600}
        claims = client.post("/v1/claims", json=asked).raise_for_status().json()["claims"]
        block = log_block(service.data_dir)
        acknowledged = block.stat().st_size
        results = {"owner": "w", "results": [completed(claim) for claim in claims]}
        client.post("/v1/results", json=results).raise_for_status()
    batch = block.stat().st_size - acknowledged
    cut_power(service, memory, acknowledged + int(batch * share))

    service.start()
    with httpx.Client(base_url=service.url) as client:
        tasks = client.get("/v1/plans/p/tasks", params={"limit": TASKS}).json()["items"]
        held = [task for task in tasks if task["status"] == "RUNNING"]
        assert {task["status"] for task in tasks} <= {"RUNNING", "COMPLETED"}
        assert len(held) == pytest.approx(TASKS * (1 - share), abs=3)
        # The worker, which has no answer, says all of it again.
        answers = client.post("/v1/results", json=results).raise_for_status().json()["results"]
        assert sum(answer["status"] == "accepted" for answer in answers) == len(held)
        assert {answer["status"] for answer in answers} <= {"accepted", "duplicate"}
        assert client.get("/v1/plans/p").json()["status"] == "COMPLETED"
    service.stop()
    code, said = run_holdfast("rebuild", "--verify", data_dir=str(service.data_dir), nats__port="0")
    assert code == 0, said


def completed(claim: dict[str, Any]) -> dict[str, Any]:
    named = {name: claim[name] for name in ("plan_id", "task_id", "attempt")}
    return named | {"outcome": "completed", "output": {"said": "x" * 100}}
