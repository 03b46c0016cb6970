"""The read models can be thrown away: rebuilt from the log they are equal, row by row."""

import asyncio
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from projections.integrity.plan_rows import PlanFile
from projections.integrity.verify import compare
from projections.read_models.copies import copy_of
from projections.read_models.database import Database
from projections.read_models.restore import SCHEMA, open_read_models
from service.runtime.data_folder import READ_MODELS
from tests.faults.crew import Ledger, Voice, Worker, fan, submit
from tests.faults.service_process import ServiceProcess, run_holdfast

TASKS = 40


def rebuild(service: ServiceProcess, *flags: str) -> tuple[int, str]:
    return run_holdfast("rebuild", *flags, data_dir=str(service.data_dir), nats__port="0")


def edit(service: ServiceProcess, *statements: str) -> None:
    with closing(sqlite3.connect(service.data_dir / READ_MODELS)) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount == 1, statement
        connection.commit()


async def live(service: ServiceProcess) -> None:
    """Work of every kind: tasks that fail, are released, slept over and completed; operators."""
    ledger, voice = Ledger(), Voice(lambda: service.url)
    for name in ("done", "open", "paused", "cancelled"):
        kind = "outside" if name == "done" else "nobody"
        await submit(voice, ledger, fan(name, TASKS, kind) | {"labels": {"name": name}})
    for word in ("pause", "cancel"):
        plan_id = "paused" if word == "pause" else "cancelled"
        await voice.say(f"/v1/plans/{plan_id}/{word}", {"reason": "test"})
    await submit(voice, ledger, {"id": "judged", "tasks": judged()})
    workers = [Worker(f"w{n}", voice, ledger, random.Random(n), 10) for n in range(3)]
    async with asyncio.TaskGroup() as group, httpx.AsyncClient(base_url=service.url) as client:
        working = [group.create_task(worker.work()) for worker in workers]
        async with asyncio.timeout(40):
            while not (await client.get("/v1/plans/done")).json()["finished_at"]:
                await asyncio.sleep(0.02)
        for task in working:
            task.cancel()
    await voice.close()


def judged() -> list[dict[str, Any]]:
    """Tasks that the executor of an instance carries out by itself."""
    return [
        {"id": "a", "kind": "echo", "input": {"say": "ä"}},
        {"id": "b", "kind": "sleep", "input": {"seconds": 0.01}, "depends_on": ["a"]},
        {
            "id": "bad",
            "kind": "http",
            "input": {"url": "http://127.0.0.1:9/"},
            "on_failure": "continue",
            "max_retries": 0,
        },
    ]


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """An instance that has seen a life, and runs."""
    service = ServiceProcess(tmp_path_factory.mktemp("rebuild") / "data")
    try:
        service.start()
        asyncio.run(live(service))
        yield service
    finally:
        service.stop()


@pytest.fixture
def at_rest(lived: ServiceProcess) -> Iterator[ServiceProcess]:
    """The same, ended for the length of a test."""
    lived.stop()
    yield lived
    lived.start()


def portrait(service: ServiceProcess) -> list[Any]:
    """What the API shows of everything."""
    with httpx.Client(base_url=service.url) as client:
        plans = client.get("/v1/plans").json()["items"]
        tasks = [client.get(f"/v1/plans/{plan['plan_id']}").json()["tasks"] for plan in plans]
        executions = client.get("/v1/executions", params={"limit": 200}).json()
    return [plans, tasks, executions]


@pytest.mark.timeout(90)
def test_verify_says_equal_beside_a_running_instance(lived: ServiceProcess) -> None:
    code, said = rebuild(lived, "--verify")
    assert (code, "equal: " in said) == (0, True), said
    rows = int(said.rpartition("equal: ")[2].split()[0].replace(",", ""))
    assert rows > 2 * 4 * TASKS


def test_verify_says_equal_when_nothing_runs(at_rest: ServiceProcess) -> None:
    code, said = rebuild(at_rest, "--verify")
    assert (code, "equal: " in said) == (0, True), said


DONE = "(SELECT first_sequence FROM plans WHERE plan_id = 'done')"
ONE_TASK = f"(SELECT ordinal FROM tasks WHERE task_id = 't1' AND first_sequence = {DONE})"  # noqa: S608
ONE_EXECUTION = f"(SELECT max(fencing_token) FROM executions WHERE task_ordinal = {ONE_TASK})"  # noqa: S608
PLANTED = {
    "plans": f"UPDATE plans SET status = 'FAILED' WHERE first_sequence = {DONE}",  # noqa: S608
    "tasks": f"UPDATE tasks SET attempt = attempt + 1 WHERE ordinal = {ONE_TASK}",  # noqa: S608
    "executions": f"DELETE FROM executions WHERE fencing_token = {ONE_EXECUTION}",  # noqa: S608
    "task_specs": f"UPDATE task_specs SET spec = 'x' WHERE ordinal = {ONE_TASK}",  # noqa: S608
}


@pytest.mark.timeout(90)
def test_planted_differences_are_found_named_and_mended(lived: ServiceProcess) -> None:
    before = portrait(lived)
    lived.stop()
    try:
        edit(lived, *PLANTED.values())
        code, said = rebuild(lived, "--verify")
        assert code == 1, said
        lines = said.splitlines()
        for table in PLANTED:
            (line,) = (line for line in lines if line.startswith(f"{table} "))
            assert " live, " in line or line.endswith("only in the rebuilt file"), line
        code, said = rebuild(lived)
        assert (code, "rebuilt up to sequence" in said) == (0, True), said
        code, said = rebuild(lived, "--verify")
        assert (code, "equal: " in said) == (0, True), said
    finally:
        lived.start()
    assert portrait(lived) == before


def test_rebuild_refuses_a_folder_that_is_in_use(lived: ServiceProcess) -> None:
    code, said = rebuild(lived)
    assert code == 3
    assert str(lived.pid) in said
    assert "Traceback" not in said


def damage(path: Path) -> None:
    path.write_bytes(b"\xff" * 8192)


def truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def delete(path: Path) -> None:
    path.unlink()


@pytest.mark.timeout(90)
@pytest.mark.parametrize("harm", [damage, delete])
def test_rebuild_replaces_a_database_that_is_gone_or_damaged(
    lived: ServiceProcess, harm: Any
) -> None:
    before = portrait(lived)
    lived.stop()
    try:
        harm(lived.data_dir / READ_MODELS)
        code, said = rebuild(lived)
        assert code == 0, said
        code, said = rebuild(lived, "--verify")
        assert (code, "equal: " in said) == (0, True), said
    finally:
        lived.start()
    assert portrait(lived) == before


@pytest.mark.timeout(90)
@pytest.mark.parametrize("harm", [truncate, delete])
def test_a_start_without_a_sound_database_rebuilds_it(lived: ServiceProcess, harm: Any) -> None:
    before = portrait(lived)
    lived.stop()
    harm(lived.data_dir / READ_MODELS)
    lived.start()
    assert portrait(lived) == before


@pytest.mark.timeout(90)
def test_a_database_of_another_log_is_rebuilt_at_start(tmp_path: Path) -> None:
    old = ServiceProcess(tmp_path / "old", roles="api,daemons")
    new = ServiceProcess(tmp_path / "new", roles="api,daemons")
    try:
        # Both logs are equally long: only their epochs tell them apart.
        for service, name in ((old, "old"), (new, "new")):
            service.start()
            for number in range(3):
                plan = {"id": f"{name}-{number}", "tasks": [{"id": "t", "kind": "outside"}]}
                httpx.post(f"{service.url}/v1/plans", json=plan).raise_for_status()
            assert len(plan_ids(service)) == 3
            service.stop()
        (new.data_dir / READ_MODELS).write_bytes((old.data_dir / READ_MODELS).read_bytes())
        new.start()
        assert sorted(plan_ids(new)) == ["new-0", "new-1", "new-2"]
        code, said = rebuild(new, "--verify")
        assert (code, "equal: " in said) == (0, True), said
    finally:
        old.stop()
        new.stop()


def plan_ids(service: ServiceProcess) -> list[str]:
    items = httpx.get(f"{service.url}/v1/plans").raise_for_status().json()["items"]
    return [plan["plan_id"] for plan in items]


@pytest.mark.parametrize("name", ["data?old", "data#1", "100%25", "run%41"])
async def test_a_data_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    """`?`, `#` and `%41` mean something in the URI that opens a file for reading only."""
    folder = tmp_path / name
    folder.mkdir()
    database = await open_read_models(folder / READ_MODELS)
    await database.close()
    to = folder / "copy.sqlite"
    assert copy_of(folder / READ_MODELS, to) == 0
    assert compare(folder / READ_MODELS, to).differences == []
    looking = await Database.look(folder / READ_MODELS, SCHEMA)
    await looking.close()
    assert PlanFile(folder / READ_MODELS).one_from(0) is None
    assert names_in(tmp_path) == [name]


def names_in(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]
