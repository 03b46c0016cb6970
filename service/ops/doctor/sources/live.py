"""Evidence from inside a running instance: what its parts know already, and two small queries.

Asking must not make a sick instance sicker: nothing here asks the log, the database is given a
moment, and those who ask together, or within a second, get the same report.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from projections.read_models.sqlite_file import DatabaseUnavailable
from service.core.core import Core
from service.daemons.schedulers import Schedulers
from service.executor.executor import Executor
from service.ops.doctor.diagnosis import diagnose
from service.ops.doctor.evidence import (
    Claiming,
    DaemonHealth,
    DatabaseHealth,
    Evidence,
    LeaseFigures,
    Load,
    LogHealth,
    Loop,
    Machine,
    Security,
    StaleWrite,
    Streams,
    Window,
    Writers,
)
from service.ops.doctor.questions.stale_writers import refused
from service.ops.doctor.report import Report, SourceReport, with_runbook_at
from service.ops.doctor.sources.history import RECENT_S, History
from service.ops.doctor.sources.open_paths import open_paths
from service.ops.doctor.sources.processes import holding
from service.ops.doctor.sources.refusals import refusals_in
from service.ops.doctor.sources.shapes import expired_leases, waiting_kinds
from service.ops.status import Check
from service.signals.loop_lag import Lag
from streams.steps import in_turns

MOST_KNOWN_KINDS = 1_000
FRESH_S = 1.0
AUDIT_DELAY_S = 1.5  # from a refusal that is counted to its row in the audit trail
DATABASE_S = 2.0


class Doctor:
    """Diagnoses the instance it lives in; on the API loop."""

    def __init__(  # noqa: PLR0913 - it asks every part
        self,
        core: Core,
        *,
        url: Callable[[], str],
        nats_url: str,
        schedulers: Callable[[], Schedulers | None],
        executor: Callable[[], Executor | None],
        lags: Callable[[], Iterable[Lag]],
        readiness: Callable[[], Iterable[Check]],
        database_path: Path,
        log_takes_anyone: Callable[[], bool] = lambda: False,
    ) -> None:
        self._core = core
        self._url = url
        self._nats_url = nats_url
        self._schedulers = schedulers
        self._executor = executor
        self._lags = lags
        self._readiness = readiness
        self._database_path = database_path
        self._log_takes_anyone = log_takes_anyone
        self._asked: asyncio.Task[Report] | None = None
        self._asked_at = 0.0
        self.history = History(core.metrics, lambda: core.board.places.claimable)
        core.projector.listeners.add_for_bad_facts("doctor", self.history.bad)

    async def report(self) -> Report:
        """What is wrong now, at most `FRESH_S` old."""
        clock = asyncio.get_running_loop().time
        if self._asked is None or (self._asked.done() and clock() - self._asked_at > FRESH_S):
            self._asked_at = clock()
            self._asked = asyncio.create_task(self._diagnose())
        return await asyncio.shield(self._asked)

    async def _diagnose(self) -> Report:
        clock = asyncio.get_running_loop().time
        began = clock()
        evidence = await self._gather()
        part = SourceReport(
            name="instance",
            state="answered",
            took_s=round(clock() - began, 3),
            detail=f"{self._core.instance_id} looked at itself",
        )
        url = self._core.settings.observability.runbook_url
        # Of thousands of kinds each is looked at.
        report = await asyncio.to_thread(diagnose, evidence, parts=[part])
        return with_runbook_at(url, report)

    async def _gather(self) -> Evidence:
        window, recent = self.history.window(), self.history.window(RECENT_S)
        entries, trouble = await self._refusals(window)
        if entries is not None and refused(window) > len(entries):
            await asyncio.sleep(AUDIT_DELAY_S)  # the entries of the newest are on their way
            entries, trouble = await self._refusals(window)
        core = self._core
        return Evidence(
            at=core.now(),
            instance=core.instance_id,
            url=self._url(),
            window_s=round(window.seconds, 1),
            machine=self._machine(recent, trouble),
            claiming=await self._claiming(recent),
            leases=self._leases(window),
            writers=Writers(window=window, entries=entries),
            load=self._load(window),
            streams=Streams(connections=core.feed.connections, window=window),
            security=self._security(window),
        )

    # -- from memory ------------------------------------------------------------------------

    async def _claiming(self, recent: Window) -> Claiming:
        core, executor = self._core, self._executor()
        now, backlog = core.now(), core.board.places.backlog()
        oldest = [since for _, since in backlog.values() if since is not None]
        own = executor.snapshot().kinds if executor else ()
        return Claiming(
            recent=recent,
            ready=backlog["ready"][0],
            refining=backlog["refining"][0],
            oldest_age_s=max((now - since for since in oldest), default=0.0),
            waiting=await in_turns(waiting_kinds(core.board, now, core.claim_queue.last_asked)),
            asking=core.claim_queue.asking,
            own_kinds=own,
            known_kinds=(*own, *core.claim_queue.demand.kinds()[-MOST_KNOWN_KINDS:]),
        )

    def _leases(self, window: Window) -> LeaseFigures:
        core = self._core
        core.board.places.advance(core.now())
        lags = {loop.name: loop.lag_s for loop in self._loops()}
        return LeaseFigures(
            running=core.board.places.running_count,
            expired=expired_leases(core.board, core.now()),
            expired_count=len(core.board.places.expired()),
            window=window,
            heartbeat_lag_s=lags.get("heartbeat"),
        )

    def _load(self, window: Window) -> Load:
        executor = self._executor()
        pool = executor.snapshot() if executor else None
        return Load(
            window=window,
            backlog=self._core.board.places.claimable,
            backlog_before=self.history.backlog_before(),
            ended=window.total("agent.task.execution.total"),
            in_flight=pool.in_flight if pool else None,
            queued=pool.queued if pool else None,
            capacity=pool.capacity if pool else None,
            threads=pool.threads if pool else None,
            overruns=pool.overruns if pool else (),
            hosts=pool.hosts if pool else (),
            unfinished_bytes=self._core.board.unfinished.total,
            most_unfinished_bytes=self._core.settings.memory.unfinished_bytes,
        )

    def _security(self, window: Window) -> Security:
        core = self._core
        connections = core.visitors.connections
        return Security(
            open_paths=open_paths(core.settings),
            log_takes_anyone=self._log_takes_anyone(),
            through_proxy=core.visitors.through_proxy,
            connections=connections.held if connections else 0,
            busiest=connections.largest() if connections else None,
            window=window,
        )

    def _machine(self, recent: Window, trouble: str | None) -> Machine:
        core = self._core
        failing = {check.name: check.detail for check in self._readiness() if not check.ok}
        seen, projector = core.conditions.log_state, core.projector
        names = core.settings.nats.access.names
        return Machine(
            log=LogHealth(
                url=self._nats_url,
                answers="log" not in failing,
                detail=failing.get("log", "connected"),
                first=seen.first if seen else 0,
                head=max(seen.head if seen else 0, core.board.sequence),
                size_bytes=seen.size_bytes if seen else 0,
                max_bytes=seen.max_bytes if seen else None,
                seen_age_s=max(core.now() - seen.at, 0.0) if seen else None,
                stopped_pid=self._stopped_nats() if "log" in failing else None,
                missing=core.conditions.log_missing,
                retention_trouble=core.conditions.retention_trouble,
                retention_behind_s=core.conditions.retention_behind_s,
                clock_stepped_s=core.clock.stepped_lately_s,
                clock_ahead_s=core.clock.wall_ahead_s,
                late_replicas=core.conditions.late_replicas,
                stream=names.plans_stream,
                audit_stream=names.audit_stream,
            ),
            database=DatabaseHealth(
                path=str(self._database_path),
                error=failing.get("database") or trouble,
                sequence=projector.flushed_sequence,
                behind=core.board.sequence - projector.flushed_sequence,
                lag_s=projector.lag_s,
            ),
            daemons=self._daemons(),
            loops=self._loops(),
            failing=failing,
            window=recent,
            bad_events=tuple(self.history.bad_events),
            second_holder_age_s=self._second_holder_age_s(),
        )

    def _second_holder_age_s(self) -> float | None:
        seen_at = self._core.second_holder.seen_at
        return None if seen_at is None else max(self._core.now() - seen_at, 0.0)

    def _stopped_nats(self) -> int | None:
        return holding(self._database_path.parent).stopped_nats_pid

    def _loops(self) -> tuple[Loop, ...]:
        return tuple(Loop(name=lag.label, lag_s=lag.lag_s) for lag in self._lags())

    def _daemons(self) -> tuple[DaemonHealth, ...]:
        schedulers = self._schedulers()
        if schedulers is None:
            return ()
        troubles = schedulers.troubles()
        now = time.time()
        return tuple(
            DaemonHealth(
                name=state.name,
                period_s=state.period_s,
                lateness_s=state.lateness_s,
                last_success_age_s=now - state.last_success_at if state.last_success_at else None,
                overruns=state.overruns,
                trouble=troubles.get(state.name),
                stuck=state.began_at is not None or state.error is None,
            )
            for state in schedulers.states
        )

    # -- from the database ------------------------------------------------------------------

    async def _refusals(self, window: Window) -> tuple[tuple[StaleWrite, ...] | None, str | None]:
        """Refused writes of the window, the newest first; None, and why, when unknown."""
        core = self._core
        try:
            async with asyncio.timeout(DATABASE_S):
                found = await refusals_in(
                    core.database, core.now() - window.seconds - AUDIT_DELAY_S
                )
        except TimeoutError:
            return None, f"no answer within {DATABASE_S:g} s"
        except DatabaseUnavailable as error:
            return None, str(error)
        return (found if core.audit.wants("claimed_update_guard_reject") else None), None
