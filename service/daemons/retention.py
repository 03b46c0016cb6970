"""Forgets plans that ended long ago: archives them, appends that fact, removes their messages.

Every stage is written down before the next one begins, so a crash at any point is finished later:
an archived plan is archived again at worst, a plan with its `forgotten` fact stands in the list of
`projections.read_models.forgetting` until its messages are gone (`service.daemons.removals`), and
the fact itself is removed when the plan's id is free again. Several instances may do this side by
side: facts are appended at an expectation, removing twice is removing once, and an archive folder
has one writer.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

import msgspec
import structlog

from projections.read_models import forgetting
from projections.read_models.sqlite_file import DatabaseUnavailable
from service.archive.days import Archive, ArchiveBusy, ArchiveError
from service.archive.fact_lines import messages_of, messages_of_many
from service.core.core import Core
from service.daemons.removals import RemovalLimits, Removals
from streams.decider import CommandAccepted, DecideLimits, transact
from streams.jetstream.forgetting import Purger
from streams.log import LogFull, LogMessage, LogReset, LogUnavailable
from streams.plan.commands import Forget
from streams.plan.state import Plan
from streams.subjects import subject_of

DAY_S = 24 * 3600.0
PERIOD_S = 5.0
FLUSH_S = 10.0
AT_ONCE = 32  # `forgotten` facts that are decided and appended together
NO_PAGE: list[LogMessage] = []

log = structlog.get_logger("holdfast.retention")

Connect = Callable[[], Awaitable[Purger]]
"""Connects as the user that may purge. Raises LogUnavailable."""


class RetentionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """``looked_at`` rows of plans are read at once, and ``plans`` forgotten in one round.

    They are read from the log in one walk of at most ``walk_messages`` for each of them, and
    ``walk_bytes``.
    """

    looked_at: int = 1_000
    plans: int = 200
    walk_messages: int = 100
    walk_bytes: int = 32 * 1024 * 1024
    removal: RemovalLimits = RemovalLimits()
    period_s: float = PERIOD_S


class Retention:
    """Forgets plans of one log; lives on the API loop."""

    def __init__(
        self,
        core: Core,
        connect: Connect | None,
        note: Callable[[int], Awaitable[None]],
        *,
        keep_s: float,
        archive_dir: Path | None,
        limits: RetentionLimits = RetentionLimits(),  # noqa: B008 - it is frozen
    ) -> None:
        """``note`` notes in the log up to where facts may be missing from now on."""
        self._core = core
        self._connect = connect
        self._keep_s = keep_s
        self._archive_dir = archive_dir
        self._limits = limits
        self._purger: Purger | None = None
        self._archive: Archive | None = None
        self._after = 0
        self._removals = Removals(core.log, core.database, core.now, note, limits.removal)

    async def run(self) -> None:
        """Forget what is due, again and again, for ever."""
        try:
            while True:
                await self.turn()
                await asyncio.sleep(self._limits.period_s)
        finally:
            await self.close()

    async def turn(self) -> None:
        """Forget all that is due now; what stops it is reported, and tried again next time."""
        conditions = self._core.conditions
        try:
            purger = await self._open()
            # First: a log that is full takes no `forgotten` facts until others have left it.
            await self._removals.work(purger)
            while await self._forget_next(self._core.now() - self._keep_s):
                await self._removals.work(purger, much=True)
            await self._removals.work(purger)
        except ArchiveBusy as busy:
            log.info("retention_elsewhere", reason=str(busy))
            conditions.retention_stopped(None)
        except (
            ArchiveError,
            DatabaseUnavailable,
            LogFull,
            LogReset,
            LogUnavailable,
            OSError,
        ) as error:
            conditions.retention_stopped(str(error))
            await self.close()
        else:
            conditions.retention_stopped(None)

    async def _open(self) -> Purger:
        """Raises LogUnavailable, ArchiveError, OSError for what is missing."""
        if self._connect is None:
            raise LogUnavailable(
                "retention.finished_days needs a user that may purge the log: "
                "nats.retention_creds_file or nats.retention_url"
            )
        if self._purger is None:
            self._purger = await self._connect()
        if self._archive is None and self._archive_dir is not None:
            self._archive = await asyncio.to_thread(Archive.open, self._archive_dir)
        return self._purger

    async def close(self) -> None:
        """Close what `turn` keeps open: the connection that may purge, and the archive."""
        purger, self._purger = self._purger, None
        archive, self._archive = self._archive, None
        if archive is not None:
            archive.close()
        if purger is not None:
            await purger.close()

    # -- plans that are due -----------------------------------------------------------------

    async def _forget_next(self, before: float) -> bool:
        """Forget the next plans that ended before a time; False after the last of them."""
        core, limits = self._core, self._limits
        rows = await forgetting.ended_before(core.database, before, self._after, limits.looked_at)
        due = [each.plan for each in rows if each.is_due][: limits.plans]
        core.conditions.retention_behind(_behind_s(due, before))
        if len(due) == limits.plans:
            self._after = due[-1].first_sequence
        elif len(rows) == limits.looked_at:
            self._after = rows[-1].plan.first_sequence
        else:
            self._after = 0
        forgotten = await self._forget(due) if due else 0
        return bool(forgotten or self._after)

    async def _forget(self, due: Sequence[Plan]) -> int:
        """Archive plans, and append their `forgotten` facts; answers how many were forgotten."""
        core = self._core
        if self._archive is not None:
            due = await self._archived(self._archive, due)
        outcomes: list[int | None] = []
        for start in range(0, len(due), AT_ONCE):  # requests get their turns of the loop in between
            some = due[start : start + AT_ONCE]
            outcomes += await asyncio.gather(*(self._say_forgotten(plan) for plan in some))
        sequences = [each for each in outcomes if each is not None]
        if not sequences:
            return 0
        names = [plan.plan_id for plan, at in zip(due, outcomes, strict=True) if at is not None]
        core.metrics.count("agent.retention.forgotten.total", len(names))
        core.audit.emit(
            "operator_action",
            owner=core.instance_id,
            actual={"action": "forget", "plans": names, "sequence": max(sequences)},
            detail=f"{len(names)} plans that ended more than {self._keep_s / DAY_S:g} days ago"
            + (f", archived in {self._archive_dir}" if self._archive is not None else ""),
        )
        # What was forgotten is listed with the flush; only then are its messages removed.
        await core.projector.flushed(max(sequences), FLUSH_S)
        return len(sequences)

    async def _say_forgotten(self, plan: Plan) -> int | None:
        """The sequence of the fact; None if the plan is not as the read models have it."""
        command, view = Forget(plan_id=plan.plan_id), _AsRead(self._core, plan)
        origin, once = self._core.self_origin, DecideLimits(tries=1)
        outcome = await transact(command, view, self._core.log, origin, once)
        return outcome.sequence if isinstance(outcome, CommandAccepted) else None

    async def _archived(self, archive: Archive, due: Sequence[Plan]) -> list[Plan]:
        """The plans that are in the archive, and on disk there, as the read models have them."""
        limits, now = self._limits, self._core.now()
        near = await messages_of_many(
            self._core.log,
            {plan.plan_id: plan.sequence for plan in due},
            due[0].first_sequence - 1,
            limits.walk_messages * len(due),
            limits.walk_bytes,
        )
        done = [each for each in due if _is_whole(each, near.get(each.plan_id, NO_PAGE))]
        entries = [(each.plan_id, near[each.plan_id]) for each in done]
        await asyncio.to_thread(_write_all, archive, entries, now)
        far = [plan for plan in due if plan.plan_id not in near]
        done += [each for each in far if await self._archived_alone(archive, each, now)]
        await asyncio.to_thread(archive.sync)
        return done

    async def _archived_alone(self, archive: Archive, plan: Plan, now: float) -> bool:
        """Archive a plan that is large, or lies far from the others, page by page."""
        writing, last = archive.begin(plan.plan_id, now), 0
        try:
            async for page in messages_of(self._core.log, plan.plan_id, plan.sequence):
                last = max([last, *_on_its_subject(plan.plan_id, page)])
                await asyncio.to_thread(writing.add, page)
        except BaseException:
            writing.abandon()
            raise
        if last != plan.subject_sequence:
            writing.abandon()
            return False
        await asyncio.to_thread(writing.end)
        return True


def _write_all(
    archive: Archive, entries: Iterable[tuple[str, Sequence[LogMessage]]], now: float
) -> None:
    for plan_id, messages in entries:
        writing = archive.begin(plan_id, now)
        try:
            writing.add(messages)
        except BaseException:
            writing.abandon()
            raise
        writing.end()


class _AsRead:
    """The view of a plan as the read models have it; a newer state of it is a lost race."""

    def __init__(self, core: Core, plan: Plan) -> None:
        self._plan = plan
        self.now = core.now
        self.folded, self.why_ignored = core.folded, core.why_ignored
        self.catch_up = core.catch_up

    def knows(self, plan_id: str) -> Plan | None:
        del plan_id
        return self._plan

    async def load(self, plan_id: str) -> Plan | None:
        return self.knows(plan_id)


def _is_whole(plan: Plan, messages: Sequence[LogMessage]) -> bool:
    """Whether the plan is in the log as the read models have it."""
    own = _on_its_subject(plan.plan_id, messages)
    return bool(own) and own[-1] == plan.subject_sequence


def _on_its_subject(plan_id: str, page: Sequence[LogMessage]) -> list[int]:
    own = subject_of(plan_id)
    return [message.sequence for message in page if message.subject == own]


def _behind_s(due: Sequence[Plan], before: float) -> float:
    """For how long the plan that ended first has been due, in seconds."""
    return max((before - (plan.finished_at or before) for plan in due), default=0.0)
