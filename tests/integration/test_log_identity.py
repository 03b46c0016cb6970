"""A log that is not the one that was folded is noticed, and so are facts that are missing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest

from projections.board.board import Board
from projections.board.lanes import SharingRule
from projections.log_identity import LogWatch, Witness, history_of
from projections.projector import Projector
from projections.read_models import plans
from projections.read_models.database import Database
from projections.read_models.older_log import LogIsOlder
from projections.read_models.restore import of_this_history, open_read_models, read_models_of
from streams.log import Draft, LogReset, LogState
from streams.plan.events import Claimed, Heartbeat, Submitted, TaskSpec
from tests.integration.http_world import serving
from tests.memory_log import MemoryLog

PLAN = Submitted(tasks=(TaskSpec(id="t", kind="k"),))


async def submit(log: MemoryLog, *names: str) -> None:
    for name in names:
        await log.append(Draft(plan_id=name, task_id=None, expected=0, events=(PLAN,)))


async def folded(log: MemoryLog, database: Database, sequence: int = 0) -> Projector:
    """Fold all of ``log`` into the read models."""
    state = await log.state()
    board = Board(SharingRule(), "a")
    board.sequence = sequence
    projector = Projector(
        log, board, database, epoch=state.epoch, now=lambda: 0.0, observe_times=lambda _: None
    )
    await projector.step(await log.scan(sequence, 1_000))
    await projector.flush()
    return projector


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.sqlite"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    opened = await open_read_models(path)
    yield opened
    await opened.close()


async def restored_backup() -> MemoryLog:
    """A log of the same epoch that shares its first fact only, and has grown past the other."""
    log = MemoryLog()
    await submit(log, "common", *(f"new-{n}" for n in range(8)))
    return log


async def test_the_checkpoint_keeps_the_newest_fact_that_stays(database: Database) -> None:
    log = MemoryLog()
    await submit(log, "p", "q")
    claim = Claimed(owner="w", attempt=1, lease_s=5)
    beat = Heartbeat(owner="w", attempt=1, lease_s=5)
    await log.append(Draft(plan_id="p", task_id="t", expected=0, events=(claim,)))
    await log.append(Draft(plan_id="p", task_id="t", expected=3, events=(beat,)))
    projector = await folded(log, database)
    checkpoint = await database.checkpoint()
    assert checkpoint is not None
    assert (checkpoint.sequence, checkpoint.witness) == (4, projector.witness)
    assert checkpoint.witness is not None
    assert checkpoint.witness.sequence == 3
    assert await history_of(log, checkpoint.witness) == "same"


async def test_read_models_of_a_replaced_history_are_made_anew_at_start(
    database: Database, path: Path
) -> None:
    old = MemoryLog()
    await submit(old, "common", "lost-1", "lost-2")
    await folded(old, database)
    same, sequence, why = await of_this_history(path, database, 3, old)
    assert (same, sequence, why) == (database, 3, None)
    new = await restored_backup()
    anew, sequence, why = await of_this_history(path, database, 3, new)
    assert (sequence, "another fact stands at sequence 3" in (why or "")) == (0, True)
    await folded(new, anew)
    shown = (await plans.page(anew)).items
    assert {plan.plan_id for plan in shown} == {"common", *(f"new-{n}" for n in range(8))}
    await anew.close()


class Told:
    """What a watch has told."""

    def __init__(self, log: MemoryLog, witness: Witness | None) -> None:
        self.missing: list[str] = []
        self.other: list[str] = []
        self.oldest: int | None = None  # plan of the views

        async def oldest(_: int) -> int | None:
            return self.oldest

        self.watch = LogWatch(
            log, lambda: witness, oldest, on_missing=self.missing.append, on_other=self.other.append
        )


@pytest.mark.parametrize(
    ("oldest", "reports"), [(1, ["submitted at 1 was not forgotten"]), (3, []), (None, [])]
)
async def test_a_plan_of_the_views_from_before_the_logs_beginning_is_reported(
    oldest: int | None, reports: list[str]
) -> None:
    log = Purged()
    await submit(log, "a", "b", "c")
    told = Told(log, None)
    told.oldest = oldest
    log.forgotten = 2
    log.remove(1, 2)
    await told.watch.look()
    assert told.missing == [], "the views may not have reached the fact that forgets it"
    await told.watch.look()
    assert len(told.missing) == len(reports)
    assert all(each in told.missing[0] for each in reports)


async def test_a_note_that_a_new_leader_has_not_heard_of_is_no_loss() -> None:
    log = Purged()
    await submit(log, "a", "b", "c")
    told = Told(log, None)
    log.remove(1, 2)
    for log.forgotten in (0, 2, 2):
        await told.watch.look()
    assert told.missing == []


async def test_a_head_below_the_read_models_is_asked_again_before_they_are_given_up(
    path: Path, database: Database
) -> None:
    """A server that is cut off from its cluster names an old head at the start."""
    log = MemoryLog()
    await submit(log, "p", "q")
    await folded(log, database)
    await database.close()
    state = await log.state()
    old = msgspec.structs.replace(state, head=1)
    asked: list[int] = []

    async def settled(known: int) -> LogState:
        asked.append(known)
        return state if len(asked) == 1 else old

    found, sequence = await read_models_of(path, old, settled, log)
    await found.close()
    assert sequence == 2
    with pytest.raises(LogIsOlder):  # the second time the log has really become shorter
        await read_models_of(path, old, settled, log)
    assert asked == [2, 2]


@pytest.mark.parametrize("epochs", [1, 2])  # two: a stream was made anew from a snapshot
async def test_a_backup_older_than_the_read_models_is_refused_and_they_are_kept(
    path: Path, database: Database, epochs: int
) -> None:
    at = [100.0]
    log, backup = MemoryLog(lambda: at[0]), MemoryLog(lambda: at[0])
    if epochs > 1:
        backup.reset()
    for name in ("p", "q", "r"):
        at[0] += 1.0
        await submit(log, name)
        if name != "r":
            await submit(backup, name)
    await folded(log, database)
    await database.close()

    async def settled(_: int) -> LogState:
        return await backup.state()

    with pytest.raises(LogIsOlder) as refused:
        await read_models_of(path, await backup.state(), settled, backup)
    for part in (f"sequence 2 (epoch {backup.epoch})", f"reached 3 (epoch {log.epoch})"):
        assert part in str(refused.value)
    kept, sequence = await read_models_of(path, await log.state(), settled, log)
    await kept.close()
    assert sequence == 3


async def test_a_shorter_log_of_other_plans_is_no_backup_and_folded_anew(
    path: Path, database: Database
) -> None:
    log, other = MemoryLog(), MemoryLog()
    other.reset()
    await submit(log, "p", "q")
    await submit(other, "x")
    await folded(log, database)
    await database.close()

    async def settled(_: int) -> LogState:
        raise AssertionError("another epoch is not asked again")

    found, sequence = await read_models_of(path, await other.state(), settled, other)
    await found.close()
    assert sequence == 0


async def test_a_log_that_is_replaced_while_it_is_followed_ends_the_watch(
    database: Database,
) -> None:
    old = MemoryLog()
    await submit(old, "common", "lost")
    witness = (await folded(old, database)).witness
    told = Told(await restored_backup(), witness)
    with pytest.raises(LogReset, match="another fact stands at sequence 2"):
        await told.watch.look()
    assert told.other
    assert told.missing == []


class Purged(MemoryLog):
    """The first messages were removed, or one in the middle."""

    def remove(self, *sequences: int) -> None:
        self._messages = [each for each in self._messages if each.sequence not in sequences]


@pytest.mark.parametrize(
    ("removed", "reason"),
    [
        ((1,), "begins at sequence 2"),
        ((1, 2, 3), "begins at sequence 4"),
        ((3,), "sequence 3 is gone"),
    ],
)
async def test_missing_facts_are_reported_and_the_read_models_are_kept(
    database: Database, path: Path, removed: tuple[int, ...], reason: str
) -> None:
    log = Purged()
    await submit(log, "a", "b", "c")
    witness = (await folded(log, database)).witness
    told = Told(log, witness)
    await told.watch.look()
    assert told.missing == [], "a whole log is no trouble"
    await submit(log, *(["d"] if removed == (3,) else []))
    log.remove(*removed)
    for _ in range(2):  # where a log begins is believed when it is seen twice
        await told.watch.look()
    assert reason in told.missing[-1]
    kept, sequence, why = await of_this_history(path, database, 3, log)
    assert (kept, sequence, why) == (database, 3, None), "they are the only copy"


@pytest.mark.timeout(90)
async def test_a_restart_finds_its_own_log_and_a_missing_fact_is_a_finding(tmp_path: Path) -> None:
    for _ in range(2):
        async with serving(tmp_path) as (instance, client):
            plan = {"tasks": [{"id": "t", "kind": "echo"}]}
            sequence = (await client.post("/v1/plans", json=plan)).json()["sequence"]
            core = instance.core
            assert await core.projector.flushed(sequence, 20)
            witness = core.projector.witness
            assert witness is not None
            assert await history_of(core.log, witness) == "same"
            assert core.board.sequence > 0
            codes = await _findings(client)
            assert "LogFactsMissing" not in codes
    async with serving(tmp_path) as (instance, client):
        instance.core.conditions.log_facts_missing("the log begins at sequence 9")
        instance.core.conditions.log_facts_missing("the log begins at sequence 9")
        async with asyncio.timeout(20):
            while "LogFactsMissing" not in await _findings(client):
                await asyncio.sleep(0.1)
            while not (entries := await _audited(client)):
                await asyncio.sleep(0.05)
        assert len(entries) == 1


async def _findings(client: httpx.AsyncClient) -> set[str]:
    report = (await client.get("/v1/ops/doctor")).json()
    return {each["code"] for each in report["findings"]}


async def _audited(client: httpx.AsyncClient) -> list[object]:
    answer = await client.get("/v1/audit?event=log_facts_missing")
    return answer.json()["items"]
