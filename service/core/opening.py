"""Opens the core: restores the read models, checks their log, makes the parts that fold facts."""

import asyncio
from contextlib import AsyncExitStack

import structlog

from projections.board.board import Board
from projections.board.lanes import SharingRule
from projections.feed import Feed
from projections.log_identity import LogWatch
from projections.projector import Projector
from projections.read_models import plans
from projections.read_models.audit_tail import AuditTail
from projections.read_models.database import Database
from projections.read_models.restore import of_this_history, read_models_of, restore_or_discard
from projections.read_models.sqlite_file import DatabaseUnavailable
from service.core.admission import CheckInput
from service.core.core import Core
from service.core.log_clock import LogClock
from service.runtime.data_folder import READ_MODELS
from service.settings.config import Settings
from service.signals.audit.trail import Audit
from service.signals.metrics.registry import Metrics
from service.signals.tracing.spans import Recorder
from streams.jetstream.log import JetStreamLog

LAST_FLUSH_S = 5.0

log = structlog.get_logger("holdfast.core")


async def open_core(
    settings: Settings,
    source: JetStreamLog,
    metrics: Metrics,
    spans: Recorder | None,
    check_input: CheckInput,
    stack: AsyncExitStack,
    *,
    is_fetched: bool = False,
) -> tuple[Core, AuditTail]:
    """The core over its restored read models, and what reads the audit stream into them.

    ``is_fetched``: another instance has made them, and no earlier process of this one.
    The caller runs their loops; what ``stack`` holds is closed at the end, the last flush first.
    Raises LogUnavailable, LogIsOlder.
    """
    clock = LogClock()
    asked_at = clock.monotonic()
    state = await source.settled()
    clock.observe_answer(state.at, asked_at)
    path = settings.data_dir / READ_MODELS
    database, sequence = await read_models_of(path, state, source.settled, source)
    database, sequence, replaced = await of_this_history(path, database, sequence, source)
    database, sequence, unfinished = await restore_or_discard(path, database, sequence)
    stack.push_async_callback(database.close)
    checkpoint = await database.checkpoint()
    # What stands before it was told by earlier processes.
    news_after = state.head if is_fetched else sequence or state.head
    board = new_board(settings, clock)
    board.is_placing = False
    board.restore(unfinished, sequence, clock.now())
    projector = Projector(
        source,
        board,
        database,
        epoch=state.epoch,
        now=clock.now,
        observe_times=clock.observe_facts,
        on_listener_failure=lambda _: metrics.count("agent.projection.listener_error.total"),
        witness=checkpoint.witness if checkpoint is not None else None,
        news_after=news_after,
    )
    stack.push_async_callback(_last_flush, projector)
    audit_tail = _audit_tail(source, database, metrics)
    core = Core(
        settings=settings,
        log=source,
        board=board,
        projector=projector,
        database=database,
        feed=Feed(settings.sse, source, metrics, clock.now, position=news_after, epoch=state.epoch),
        metrics=metrics,
        clock=clock,
        audit=_audit(settings, source, metrics, clock, audit_tail, stack),
        check_input=check_input,
        tell_goodbye=source.goodbyes.tell,
        spans=spans,
        epoch=state.epoch,
    )
    if replaced is not None:
        core.conditions.log_replaced(replaced)
    await source.goodbyes.listen(core.claim_queue.dismiss_elsewhere, _goodbyes_refused)
    return core, audit_tail


def _goodbyes_refused(said: str) -> None:
    log.warning("goodbyes_refused", reason=said, see="docs/howto/nats-accounts.md")


def log_watch(core: Core) -> LogWatch:
    """Compares the log with what was folded from it, and reports to ``core``."""

    async def oldest_plan(reached: int) -> int | None:
        if core.projector.flushed_sequence < reached:
            return None
        try:
            return await plans.oldest(core.database)
        except DatabaseUnavailable:  # its probe reports it
            return None

    return LogWatch(
        core.log,
        lambda: core.projector.witness,
        oldest_plan,
        on_missing=core.conditions.log_facts_missing,
        on_other=core.conditions.log_replaced,
    )


def _audit(
    settings: Settings,
    source: JetStreamLog,
    metrics: Metrics,
    clock: LogClock,
    tail: AuditTail,
    stack: AsyncExitStack,
) -> Audit:
    instance_id, wanted = settings.executor.instance_id, settings.observability
    audit = Audit(source.trail, metrics, instance_id, clock.now, wanted, tail.stored)
    stack.push_async_callback(audit.close)
    return audit


def _audit_tail(source: JetStreamLog, database: Database, metrics: Metrics) -> AuditTail:
    def on_bad(sequence: int, subject: str, reason: str) -> None:
        metrics.count("agent.projection.bad_event.total")
        log.warning("bad_audit_entry", sequence=sequence, subject=subject, reason=reason)

    return AuditTail(source.trail, database, on_bad)


def new_board(settings: Settings, clock: LogClock) -> Board:
    """An empty board that shares slots as the settings say."""
    claim = settings.executor.claim
    rule = SharingRule(
        refining_max_ratio=claim.refining_max_ratio,
        refining_min_per_tick=claim.refining_min_per_tick,
        ready_first=claim.ready_first,
        ageing_s=claim.ageing_s,
    )
    return Board(rule, settings.executor.instance_id, clock=clock)


async def _last_flush(projector: Projector) -> None:
    try:
        async with asyncio.timeout(LAST_FLUSH_S):
            await projector.flush()
    except (TimeoutError, DatabaseUnavailable) as error:
        # Nothing is lost: the next start follows the log from the checkpoint.
        log.warning("last_flush_failed", error=repr(error))
