"""A backup that is made under load holds what was acknowledged before it, and can be served."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from projections.read_models.sqlite_file import read_only_uri
from service.ops.backups import MANIFEST
from service.runtime.data_folder import READ_MODELS
from tests.conftest import PrivateServer
from tests.faults.service_process import ServiceProcess, run_holdfast
from tests.waiting import until

BEFORE = 20


def backup(source: Path, to: Path) -> tuple[int, str]:
    return run_holdfast("backup", str(to), data_dir=str(source), nats__port="0")


def restore(to: Path, source: Path) -> tuple[int, str]:
    return run_holdfast("restore", str(source), data_dir=str(to), nats__port="0")


def submit(client: httpx.Client, plan_id: str, kind: str = "echo") -> int:
    tasks = [{"id": "a", "kind": kind, "input": {"say": "x" * 1_000}}]
    answer = client.post("/v1/plans", json={"id": plan_id, "tasks": tasks})
    assert answer.status_code in (200, 201), answer.text
    return answer.json()["sequence"]


@contextmanager
def writing(url: str) -> Iterator[list[int]]:
    """Plans are submitted meanwhile, one after the other."""
    ended, written = threading.Event(), list[int]()

    def write() -> None:
        with httpx.Client(base_url=url, timeout=20) as client:
            while not ended.is_set() and len(written) < 2_000:
                written.append(submit(client, f"during-{len(written)}"))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield written
    finally:
        ended.set()
        thread.join()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, int]:
    """The data folder of an instance that has ended, its backup, and what was written before it."""
    folder = tmp_path_factory.mktemp("backup")
    service = ServiceProcess(folder / "data").start()
    try:
        with httpx.Client(base_url=service.url, timeout=20) as client:
            before = [submit(client, f"before-{number}") for number in range(BEFORE)][-1]
            submit(client, "paused", kind="outside")
            assert client.post("/v1/plans/paused/pause", json={"reason": "audited"}).is_success
        with writing(service.url):
            code, said = backup(service.data_dir, folder / "saved")
        assert code == 0, said
        assert f"{folder / 'saved'}: " in said
        with httpx.Client(base_url=service.url, timeout=20) as client:
            submit(client, "later")
    finally:
        service.stop()
    return folder / "data", folder / "saved", before


def _seed(service: ServiceProcess, source: Path) -> tuple[int, str]:
    return run_holdfast("restore", "--read-models", str(source), data_dir=str(service.data_dir))


def _sequence_in(data_dir: Path) -> int:
    with closing(sqlite3.connect(read_only_uri(data_dir / READ_MODELS), uri=True)) as connection:
        asked = "SELECT sequence FROM checkpoint WHERE stream = 'PLANS'"
        return (connection.execute(asked).fetchone() or [0])[0]


def manifest_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / MANIFEST).read_bytes())


@pytest.mark.timeout(120)
def test_a_restored_backup_serves_what_was_written_before_it(
    saved: tuple[Path, Path, int], tmp_path: Path
) -> None:
    _, folder, before = saved
    manifest = manifest_of(folder)
    last = manifest["streams"]["plans"]["copy"]["state"]["last_seq"]
    assert manifest["read_models_sequence"] <= last
    assert before <= last
    target = tmp_path / "data"

    code, said = restore(target, folder)

    assert code == 0, said
    assert f"facts up to sequence {last:,}" in said
    service = ServiceProcess(target).start()
    try:
        assert "rebuilding_read_models" not in service.output
        with httpx.Client(base_url=service.url, timeout=20) as client:
            for number in range(BEFORE):
                assert client.get(f"/v1/plans/before-{number}").status_code == 200
            assert submit(client, "after") > last
            assert "audited" in client.get("/v1/audit").text
            assert client.get("/v1/plans/paused").json()["status"] == "PAUSED"
        code, said = run_holdfast("rebuild", "--verify", data_dir=str(target), nats__port="0")
        assert (code, "equal: " in said) == (0, True), said
    finally:
        service.stop()


@pytest.mark.timeout(120)
def test_a_start_on_a_backup_older_than_the_read_models_is_refused_until_a_rebuild(
    saved: tuple[Path, Path, int], tmp_path: Path
) -> None:
    source, folder, _ = saved
    target = tmp_path / "data"
    assert restore(target, folder)[0] == 0
    (target / READ_MODELS).write_bytes((source / READ_MODELS).read_bytes())
    last = manifest_of(folder)["streams"]["plans"]["copy"]["state"]["last_seq"]

    code, said = run_holdfast("serve", data_dir=str(target), nats__port="0", http__port="0")

    assert code == 3, said
    assert f"the log ends at sequence {last} (epoch PLANS@" in said
    assert "the log is an older backup" in said
    assert "Traceback" not in said
    code, said = run_holdfast("rebuild", data_dir=str(target), nats__port="0")
    assert code == 0, said
    service = ServiceProcess(target).start()
    try:
        assert httpx.get(f"{service.url}/v1/plans/before-0").status_code == 200
        assert httpx.get(f"{service.url}/v1/plans/later").status_code == 404
    finally:
        service.stop()


@pytest.mark.timeout(90)
def test_a_backup_at_rest_is_the_same_log(saved: tuple[Path, Path, int], tmp_path: Path) -> None:
    source, _, _ = saved

    code, said = backup(source, tmp_path / "rest")

    assert code == 0, said
    streams = manifest_of(tmp_path / "rest")["streams"]
    assert streams["plans"]["copy"]["config"]["name"] == "PLANS"


def test_what_exists_is_not_overwritten(saved: tuple[Path, Path, int]) -> None:
    source, folder, _ = saved
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}

    assert backup(source, folder)[0] == 1
    code, said = restore(source, folder)

    assert code == 1
    assert "exists, and a backup is restored only where nothing is" in said
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize("file", [READ_MODELS, "plans.snapshot", "audit.snapshot", MANIFEST])
def test_a_damaged_backup_is_refused_by_the_name_of_the_file(
    saved: tuple[Path, Path, int], tmp_path: Path, file: str
) -> None:
    _, folder, _ = saved
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    damaged = bytearray((copy / file).read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    (copy / file).write_bytes(damaged)

    code, said = restore(tmp_path / "data", copy)

    assert code == 1
    assert file in said
    assert not (tmp_path / "data" / "nats").exists()


@pytest.mark.timeout(120)
def test_an_empty_folder_starts_on_read_models_of_another_instance(
    private_nats: PrivateServer, tmp_path: Path
) -> None:
    first = ServiceProcess(tmp_path / "first", nats_url=private_nats.url)
    second = ServiceProcess(tmp_path / "second", nats_url=private_nats.url)
    copy = tmp_path / "copy"
    try:
        with httpx.Client(base_url=first.start().url, timeout=20) as client:
            for number in range(BEFORE):
                submit(client, f"before-{number}")
            until(lambda: _sequence_in(first.data_dir))  # rows are written after their facts
            code, said = run_holdfast(
                "backup", "--read-models", str(copy), data_dir=str(first.data_dir)
            )
            assert code == 0, said
            after = submit(client, "after")
        manifest = manifest_of(copy)
        assert manifest["streams"] == {}
        assert manifest["read_models_sequence"] > 0

        code, said = _seed(second, copy)

        assert code == 0, said
        assert f"read models up to sequence {manifest['read_models_sequence']:,}" in said
        code, said = _seed(second, copy)
        assert (code, "restored only where nothing is" in said) == (1, True), said
        with httpx.Client(base_url=second.start().url, timeout=20) as client:
            assert client.get("/v1/plans/after").json()["sequence"] >= after
            assert client.get(f"/v1/plans/before-{BEFORE - 1}").status_code == 200
        assert "rebuilding_read_models" not in second.output
        code, said = run_holdfast(
            "rebuild", "--verify", data_dir=str(second.data_dir), nats__url=private_nats.url
        )
        assert (code, "equal: " in said) == (0, True), said
    finally:
        first.stop()
        second.stop()


def test_read_models_alone_are_no_log(saved: tuple[Path, Path, int], tmp_path: Path) -> None:
    source, _, _ = saved
    alone, target = tmp_path / "alone", tmp_path / "data"
    assert run_holdfast("backup", "--read-models", str(alone), data_dir=str(source))[0] == 0

    code, said = restore(target, alone)

    assert code == 1
    assert "holds no log: restore it with --read-models" in said
    empty = tmp_path / "empty"
    code, said = run_holdfast("backup", "--read-models", str(alone) + "2", data_dir=str(empty))
    assert (code, "there are no read models in" in said) == (1, True), said


def test_read_models_of_another_log_are_folded_anew(
    saved: tuple[Path, Path, int], private_nats: PrivateServer, tmp_path: Path
) -> None:
    _, folder, _ = saved
    service = ServiceProcess(tmp_path / "data", nats_url=private_nats.url)
    code, said = _seed(service, folder)
    assert code == 0, said
    try:
        with httpx.Client(base_url=service.start().url, timeout=20) as client:
            assert client.get("/v1/plans/before-0").status_code == 404
        assert "they were folded from another log" in service.output
    finally:
        service.stop()


def test_the_service_itself_may_not_copy_the_log(saved: tuple[Path, Path, int]) -> None:
    source, _, _ = saved
    server = (source / "nats" / "server.conf").read_text()

    accounts = json.loads(server.partition("accounts: ")[2])

    service, maintenance, retention = accounts["HOLDFAST"]["users"]
    assert retention["permissions"]["publish"]["allow"] == ["$JS.API.STREAM.PURGE.PLANS"]
    assert not any("SNAPSHOT" in each for each in service["permissions"]["publish"]["allow"])
    assert all("plans." not in each for each in maintenance["permissions"]["publish"]["allow"])
