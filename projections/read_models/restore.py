"""The read models together: their schema, opening their file, and the plans that its rows restore.

Restoring is the inverse of `projections.read_models.pending`.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from msgspec.structs import replace

from projections.log_identity import history_of, replaced_at
from projections.read_models import (
    audit,
    checkpoints,
    executions,
    forgetting,
    outputs,
    plans,
    tasks,
)
from projections.read_models.database import CHECKPOINT_DDL, Database
from projections.read_models.older_log import refuse_older
from projections.read_models.sqlite_file import DatabaseUnavailable, MustRebuild, Schema, discard
from streams.log import Log, LogState
from streams.plan.sizes import plan_bytes
from streams.plan.state import Plan, connect, recount

TABLES = (plans, tasks, outputs, checkpoints, executions, forgetting, audit)
SCHEMA = Schema(version=9, ddl=CHECKPOINT_DDL + "".join(table.DDL for table in TABLES))
RESTORE_TIME_S = 600.0  # at the start only; a million unfinished tasks take a minute

log = structlog.get_logger("holdfast.read_models")

# Answers the state of a log that is known to have reached a sequence, once that is certain.
Settled = Callable[[int], Awaitable[LogState]]


async def open_read_models(path: Path) -> Database:
    """Open the read models' file (`Database.open`), made new if it is missing."""
    return await Database.open(path, SCHEMA)


async def read_models_of(
    path: Path, state: LogState, settled: Settled, source: Log
) -> tuple[Database, int]:
    """The read models, and the sequence they have reached; made anew if they are another log's.

    A log that ends before them is asked again by ``settled``: a server that is cut off from its
    cluster must not cost the read models. Raises LogIsOlder if it is a backup older than they are.
    """
    try:
        database = await open_read_models(path)
    except MustRebuild as reason:
        log.warning("rebuilding_read_models", reason=str(reason))
        discard(path)
        return await open_read_models(path), 0
    checkpoint = await database.checkpoint()
    if checkpoint is None:
        return database, 0
    if checkpoint.epoch == state.epoch and checkpoint.sequence > state.head:
        log.warning("log_ends_early", head=state.head, read_models=checkpoint.sequence)
        state = await settled(checkpoint.sequence)
    try:
        await refuse_older(database, checkpoint, state, source)
    except BaseException:
        await database.close()
        raise
    reason = "they were folded from another log"
    if checkpoint.epoch == state.epoch:
        if checkpoint.sequence >= state.forgotten:
            return database, checkpoint.sequence
        reason = "facts that they have not seen were forgotten meanwhile"
    log.warning("rebuilding_read_models", reason=reason)
    await database.close()
    discard(path)
    return await open_read_models(path), 0


async def of_this_history(
    path: Path, database: Database, sequence: int, source: Log
) -> tuple[Database, int, str | None]:
    """The same read models, made anew if ``source`` has another history; and why they were.

    Raises LogUnavailable.
    """
    checkpoint = await database.checkpoint() if sequence else None
    witness = checkpoint.witness if checkpoint is not None else None
    if witness is None or await history_of(source, witness) != "other":
        return database, sequence, None
    reason = replaced_at(witness)
    log.warning("rebuilding_read_models", reason=reason)
    await database.close()
    discard(path)
    return await open_read_models(path), 0, reason


async def restore_or_discard(
    path: Path, database: Database, sequence: int
) -> tuple[Database, int, list[Plan]]:
    """`restore`; read models with a row that cannot be restored are made anew, to be folded again.

    Raises DatabaseUnavailable.
    """
    try:
        return database, sequence, await restore(database)
    except DatabaseUnavailable as error:
        cause = error.__cause__
        if isinstance(cause, sqlite3.OperationalError | TimeoutError | OSError):
            raise  # it is locked, or slow: nothing is wrong with what is in it
        log.warning("rebuilding_read_models", reason=str(error))
    await database.close()
    discard(path)
    return await open_read_models(path), 0, []


async def restore(database: Database) -> list[Plan]:
    """Every unfinished plan as it was folded up to the checkpoint, in the order of submission.

    Each task has the execution of its last attempt, as the fold keeps it. Raises
    DatabaseUnavailable.
    """
    found = await database.read(
        f"{plans.RESTORE} WHERE p.finished_at IS NULL ORDER BY p.first_sequence",
        (),
        plans.restored,
        within_s=RESTORE_TIME_S,
    )
    folded = {plan.first_sequence: plan for plan in found}
    rows = await database.read(
        f"{tasks.RESTORE} JOIN plans p ON p.first_sequence = t.first_sequence "
        "WHERE p.finished_at IS NULL ORDER BY t.ordinal",
        (),
        tasks.restored,
        within_s=RESTORE_TIME_S,
    )
    for first_sequence, task in rows:
        folded[first_sequence].tasks[task.spec.id] = task
    kept = await database.read(
        f"{checkpoints.RESTORE} WHERE p.finished_at IS NULL ORDER BY c.ordinal, c.key",
        (),
        checkpoints.restored,
        within_s=RESTORE_TIME_S,
    )
    by_ordinal = {task.ordinal: task for _, task in rows} if kept else {}
    for ordinal, key, checkpoint in kept:
        task = by_ordinal[ordinal]
        task.checkpoints = (task.checkpoints or {}) | {key: checkpoint}
    for plan in found:
        _complete(plan)
        await asyncio.sleep(0)  # thousands of plans must not hold the loop
    return found


def _complete(plan: Plan) -> None:
    specs = tuple(task.spec for task in plan.tasks.values())
    plan.spec = replace(plan.spec, tasks=specs)
    connect(plan)
    recount(plan)
    plan.bytes = plan_bytes(plan)
