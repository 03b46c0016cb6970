"""Rows become the plans they were made of, whenever the projector crashed and began again."""

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from projections.integrity.verify import compare
from projections.read_models.database import Database
from projections.read_models.pending import Pending
from projections.read_models.restore import open_read_models, restore, restore_or_discard
from projections.read_models.sqlite_file import DatabaseUnavailable
from streams.log import Fact
from streams.plan import commands
from streams.plan.events import Submitted, TaskSpec
from streams.plan.state import Plan, Task
from tests.integration.read_models_world import (
    CrashingProjector,
    History,
    folded_into,
    submitted,
)

NOT_KEPT = {
    "touched", "renewed", "closed", "outputs", "kept", "outdated", "held", "latest", "tasks",
    "dependents", "critics", "checkpoints",
}  # fmt: skip


def fields(value: Plan | Task) -> dict[str, Any]:
    kept = {name: getattr(value, name) for name in value.__struct_fields__ if name not in NOT_KEPT}
    return {name: bytes(v) if isinstance(v, Raw) else v for name, v in kept.items()}


def picture(plan: Plan) -> dict[str, Any]:
    """Everything that is folded, with related tasks by name."""
    tasks = {
        task_id: {
            **fields(task),
            "checkpoints": {
                key: (kept.attempt, kept.sequence, kept.size, kept.digest)
                for key, kept in (task.checkpoints or {}).items()
            },
            "dependents": [other.spec.id for other in task.dependents],
            "critics": [other.spec.id for other in task.critics or ()],
        }
        for task_id, task in plan.tasks.items()
    }
    return {**fields(plan), "tasks": tasks}


def pictures(plans: dict[str, Plan]) -> dict[str, Any]:
    return {plan_id: picture(p) for plan_id, p in plans.items() if p.finished_at is None}


numbers = st.lists(st.integers(0, 16 * 3 * 4 * 2 * 3 - 1), min_size=1, max_size=120)
# How many facts a batch has, and what follows it: nothing, a flush, one that fails, a crash.
steps = st.lists(
    st.tuples(st.integers(1, 12), st.sampled_from(["", "flush", "flush", "locked", "crash"])),
    max_size=40,
)


class Locked:
    """A database that takes nothing; ``meanwhile`` is called while it is asked."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self._meanwhile = meanwhile

    async def write(self, *_: object) -> NoReturn:
        self._meanwhile()
        raise DatabaseUnavailable("locked")


@pytest.mark.timeout(240)  # many small files; shared machines are slow at those
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(numbers=numbers, steps=steps)
def test_a_fold_that_crashes_and_goes_on_equals_one_that_never_did(
    numbers: list[int], steps: list[tuple[int, str]]
) -> None:
    history = History()
    for number in numbers:
        history.choose(number)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(crash_and_compare(history, steps, Path(folder)))


async def crash_and_compare(history: History, steps: list[tuple[int, str]], folder: Path) -> None:
    facts = history.facts
    database = await open_read_models(folder / "live.sqlite")
    projector = CrashingProjector(database)
    done = 0

    def fold_next(size: int) -> None:
        nonlocal done
        if batch := facts[done : done + size]:
            projector.fold(batch, facts)
            done += len(batch)

    for size, then in steps:
        fold_next(size)
        if then == "flush":
            await projector.flush()
        elif then == "locked":
            locked = cast("Database", Locked(lambda: fold_next(3)))
            with pytest.raises(DatabaseUnavailable):
                await projector.pending.flush(locked)
        elif then == "crash":
            done = await projector.crash()
    if facts[done:]:
        projector.fold(facts[done:], facts)
    await projector.flush()
    whole = await folded_into(folder / "whole.sqlite", facts)
    restored = {plan.plan_id: plan for plan in await restore(database)}
    await whole.close()
    await database.close()
    assert pictures(restored) == pictures(history.plans)
    compared = compare(folder / "live.sqlite", folder / "whole.sqlite")
    assert [str(difference) for difference in compared.differences] == []
    assert compared.rows >= len(history.plans)


async def test_a_renewal_that_is_written_late_changes_nothing_newer(tmp_path: Path) -> None:
    history = History()
    words = {"plan_id": "p1", "task_id": "a", "owner": "w1", "attempt": 1}
    history.say(commands.Submit(plan_id="p1", plan=submitted()))
    history.say(commands.Claim(plan_id="p1", task_id="a", owner="w1"))
    history.say(commands.Heartbeat(**words))
    history.say(commands.Complete(**words, output=Raw(b"1")))
    renewed, completed = history.facts[-2:]
    database = await open_read_models(tmp_path / "live.sqlite")
    projector = CrashingProjector(database)
    projector.fold(history.facts[:2], history.facts)
    await projector.flush()
    projector.fold([renewed], history.facts)
    locked = cast("Database", Locked(lambda: projector.fold([completed], history.facts)))
    with pytest.raises(DatabaseUnavailable):
        await projector.pending.flush(locked)
    await projector.flush()
    (restored,) = await restore(database)
    assert picture(restored) == picture(history.plans["p1"])
    await database.close()


@pytest.mark.parametrize("statement", [
    "UPDATE tasks SET retry = retry + 1 WHERE task_id = 'a'",
    "DELETE FROM executions WHERE fencing_token = (SELECT max(fencing_token) FROM executions)",
    "INSERT INTO plan_labels VALUES ('x', 77)",
    "UPDATE plan_specs SET spec = CAST('{}' AS BLOB)",
])  # fmt: skip
async def test_a_planted_difference_is_found_and_readable(tmp_path: Path, statement: str) -> None:
    history = History()
    for number in range(0, 2000, 7):
        history.choose(number)
    live = await folded_into(tmp_path / "live.sqlite", history.facts)
    whole = await folded_into(tmp_path / "whole.sqlite", history.facts)
    assert compare(tmp_path / "live.sqlite", tmp_path / "whole.sqlite").differences == []
    await live.write([(statement, [()])])
    found = compare(tmp_path / "live.sqlite", tmp_path / "whole.sqlite", limit=3).differences
    await live.close()
    await whole.close()
    assert 1 <= len(found) <= 3
    assert all(difference.table in statement for difference in found)
    assert all(("live" in line or "rebuilt" in line) for line in map(str, found))


async def test_rows_that_were_not_flushed_are_gone_and_so_is_their_checkpoint(
    tmp_path: Path,
) -> None:
    history = History()
    for number in range(0, 900, 5):
        history.choose(number)
    database = await open_read_models(tmp_path / "live.sqlite")
    assert await database.checkpoint() is None
    projector = CrashingProjector(database)
    half = len(history.facts) // 2
    projector.fold(history.facts[:half], history.facts)
    await projector.flush()
    projector.fold(history.facts[half:], history.facts)
    assert await projector.crash() == half
    assert len(Pending(half, "e")) == 0
    await database.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE task_specs SET spec = 'no JSON' WHERE ordinal = (SELECT max(ordinal) FROM tasks)",
        "UPDATE plan_specs SET spec = '[]' WHERE first_sequence = 1",
    ],
)
async def test_a_row_that_cannot_be_restored_has_the_file_folded_anew(
    tmp_path: Path, statement: str
) -> None:
    path = tmp_path / "live.sqlite"
    spec = Submitted(tasks=(TaskSpec(id="t", kind="k"),))
    database = await folded_into(path, [Fact(1, 1.0, "p", None, spec)])
    sound = await restore_or_discard(path, database, 1)
    assert [plan.plan_id for plan in sound[2]] == ["p"]
    await database.write([(statement, [()])])
    anew, sequence, plans = await restore_or_discard(path, database, 1)
    assert (anew is database, sequence, plans) == (False, 0, [])
    assert await anew.checkpoint() is None
    await anew.close()
