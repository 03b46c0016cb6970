"""Whether the log and the database answer and are whole, and what is reported when that changes."""

import structlog

from service.core.log_clock import LogClock
from service.signals.audit.facts import FactAudit
from service.signals.audit.outages import Outage
from service.signals.audit.trail import Audit
from service.signals.metrics.registry import Metrics
from streams.log import LogState, ReplicaTrouble

log = structlog.get_logger("holdfast.core")

KNOWN_S = 5.0  # for how long an answer of the log says how its replicas are
CLOCKS_DIFFER_S = 5.0  # what neither NTP nor the way of an answer explains


class Conditions:
    """What an instance has seen of the log and of its database; lives on the API loop."""

    def __init__(
        self, clock: LogClock, metrics: Metrics, audit: Audit, fact_audit: FactAudit
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._audit = audit
        self._fact_audit = fact_audit
        self.log_outage = Outage(audit, "log_unavailable", "log_recovered")
        self.database_outage = Outage(audit, "database_error", "database_recovered")
        self.log_state: LogState | None = None
        self._log_seen_at = float("-inf")  # monotonic
        self.log_missing: str | None = None  # why the log is not whole
        self.retention_trouble: str | None = None  # why no plan can be forgotten
        self.snapshots_trouble: str | None = None  # why no snapshot can be taken
        self.retention_behind_s = 0.0  # for how long a plan has been due to be forgotten

    def log_seen(self, state: LogState) -> None:
        """The log has just described itself."""
        self.log_state = state
        self._log_seen_at = self._clock.monotonic()

    @property
    def late_replicas(self) -> tuple[ReplicaTrouble, ...]:
        """The replicas that do not keep up; none while the log does not answer."""
        known = self._clock.monotonic() - self._log_seen_at < KNOWN_S
        return self.log_state.late if self.log_state and known else ()

    def log_answers(self, witness: str, error: str | None, at: float | None = None) -> None:
        """``witness`` could reach the log (``error`` None) or not, at log time ``at`` (now)."""
        at = self._clock.now() if at is None else at
        if error is not None:
            self.log_outage.missed(witness, error, at)
        elif self.log_outage.found(witness, at):
            self._fact_audit.log_recovered()

    def database_answers(self, witness: str, error: str | None, at: float | None = None) -> None:
        """``witness`` could use the database (``error`` None) or not, at log time ``at`` (now)."""
        at = self._clock.now() if at is None else at
        if error is not None:
            self.database_outage.missed(witness, error, at)
        else:
            self.database_outage.found(witness, at)

    def id_shared(self, why: str, sequence: int) -> None:
        """Another process writes under this instance's id."""
        self._audit.emit("instance_id_shared", detail=why, actual={"sequence": sequence})

    def log_replaced(self, why: str) -> None:
        """The views were folded from another log than the one that is there now."""
        log.error("log_replaced", reason=why)
        self._audit.emit("log_replaced", detail=why)

    def log_facts_missing(self, why: str) -> None:
        """Facts have left the log that nothing removes; reported at each check while it is so."""
        self._metrics.count("agent.projection.mismatch.total")
        if self.log_missing is None:
            log.error("log_facts_missing", reason=why)
            self._audit.emit("log_facts_missing", detail=why)
        self.log_missing = why

    def retention_stopped(self, why: str | None) -> None:
        """Plans cannot be forgotten for this reason; None: they can."""
        if why is not None and self.retention_trouble is None:
            log.error("retention_stopped", reason=why)
        if why is None and self.retention_trouble is not None:
            log.info("retention_goes_on")
        self.retention_trouble = why

    def snapshots_stopped(self, why: str | None) -> None:
        """No snapshot of the read models can be taken for this reason; None: it can."""
        if why is not None and self.snapshots_trouble is None:
            log.warning("snapshots_stopped", reason=why)
        if why is None and self.snapshots_trouble is not None:
            log.info("snapshots_go_on")
        self.snapshots_trouble = why

    def retention_behind(self, seconds: float) -> None:
        """The plan that is due longest has been due for so long."""
        self.retention_behind_s = seconds

    def clock_stepped(self, by_s: float) -> None:
        """The log server's clock was set: leases go on for as long as they were granted."""
        log.error("log_clock_stepped", seconds=round(by_s, 3))
        self._audit.emit(
            "log_clock_stepped",
            actual={"seconds": round(by_s, 3)},
            detail=f"the log server's clock was set {'forward' if by_s > 0 else 'back'} "
            f"by {abs(by_s):.1f} s",
        )
