"""Every metric of Holdfast, declared once as data: what SIGNALS.md lists.

/metrics, /actuator/metrics, dashboards and alert rules follow from it or are checked against it.
Label values are small closed sets, never ids, owners, URLs or messages.
"""

from collections.abc import Mapping

from service.signals.audit.events import CLASSES
from service.signals.metrics.metric import Label, Metric, counter, gauge, histogram, times
from streams.plan.error_types import ERROR_TYPES

OTHER = "other"

MAX_SERIES = 400
"""How many series one instance may ever show, every bucket of a histogram counted as one."""

# Few buckets, each at a threshold: an aim of speed, a rule, a default setting. Above a rule's
# threshold stands one more: a quantile in the last bucket is shown as that bucket's lower bound.
# What lies between is shown by the quantiles of the last minute (`service.signals.metrics.recent`).
# One more bucket where there are labels costs five to ten series.
LATENCY_S = (0.01, 0.25, 1.0, 10.0)  # 10 ms to start, 250 ms to fan out, 1 s SseReplaySlow
LAG_S = (0.02, 0.25, 1.0)  # 20 ms is the promise of each loop, 0.25 s LoopLagHigh
LATENESS_S = (0.5, 2.5)  # 0.5 s is DaemonLate
TICK_S = (1.0,)  # 1 s is most daemons' period; what is longer is an overrun
LEASE_S = (10.0,)  # what a default lease of 15 s has left; the alert looks at parts of a lease
LEASE_PARTS = (0.0, 0.2, 0.4, 0.8)  # a heartbeat every third leaves 0.67; 0.2 is the alert
WORK_S = (10.0,)  # a call of a tool is shorter, and a talk with a model longer
REQUEST_S = (0.1, 1.0)  # a request that waits for the log, and one that is noticed
ATTEMPTS = (1.0, 4.0)  # 4 is the last try of the default retries
SIZES = (15.0,)  # a batch pays from 15 on; it ends at 1,000

TASK_TYPE = Label("task_type", ("worker", "critic"))
RESULT = Label("result", ("completed", "failed", "released", "cancelled", "lost"))
OPERATION = Label("op", ("start", "progress", "complete", "fail", "release"))
LANE = Label("lane", ("ready", "refining"))
# Which loops and daemons a process has depends on its roles: a daemon that is not run here must
# not look like one that never succeeded.
LOOP = Label("loop", ("api", "executor", "daemon", "heartbeat"), eager=False)
DAEMON = Label(
    "daemon",
    (
        "lease_monitor",
        "plan_closer",
        "backlog_sampler",
        "log_probe",
        "database_probe",
        "self_check",
    ),
    eager=False,
)
AUDIT_EVENTS = tuple(CLASSES)


_CLAIMS = (
    counter(
        "agent.task.claim.poll.total",
        "Asks for work with at least one free slot",
        alert="ClaimSpinning",
    ),
    counter(
        "agent.task.claim.success.total", "Tasks claimed (tasks, not polls)", alert="ClaimStarved"
    ),
    counter(
        "agent.task.claim.empty.total", "Asks for work that claimed nothing", alert="ClaimSpinning"
    ),
    counter("agent.task.claim.reclaimed.total", "Claims that took over an expired lease"),
    counter("agent.task.claim.ready.count", "Tasks claimed from the ready lane"),
    counter("agent.task.claim.refining.count", "Tasks claimed from the refining lane"),
    counter(
        "agent.task.claim.ready.fallback.count",
        "Tasks claimed from the ready lane with slots that the refining lane left unused",
    ),
    counter(
        "agent.task.claim.refining.fallback.count",
        "Tasks claimed from the refining lane with slots that the ready lane left unused",
    ),
    counter("agent.task.claim.conflict.total", "Claim appends that lost their race"),
    histogram(
        "agent.task.claim.execution_attempt",
        "Attempt number of each claim",
        ATTEMPTS,
        shows=("0.99",),
    ),
)

_EXECUTOR = (
    counter("agent.task.dispatch.success.total", "Claimed tasks that the worker pool took"),
    counter(
        "agent.task.dispatch.reject.total",
        "Claimed tasks that the worker pool refused",
        Label("reason", ("full", "draining", "no_handler")),
        alert="DispatchRejecting",
    ),
    gauge(
        "agent.task.worker.inflight.current",
        "Tasks running in the worker pool",
        alert="DispatchRejecting",
    ),
    gauge(
        "agent.task.worker.queue.current",
        "Tasks waiting in the worker pool",
        alert="DispatchRejecting",
    ),
    gauge(
        "agent.task.worker.capacity",
        "Tasks that the worker pool can hold",
        alert="DispatchRejecting",
    ),
    gauge(
        "agent.task.worker.overrun.current",
        "Handlers that hold a thread although their attempt is over",
        alert="HandlersOverrun",
    ),
    gauge(
        "agent.task.worker.host.memory",
        "Memory of the worker host processes in bytes; 0 where handlers run in this process",
    ),
    counter(
        "agent.task.worker.host.replaced.total",
        "Worker host processes started in place of one that ended or ignored a stop",
    ),
    times(
        "agent.task.claim_to_start.latency",
        "From the claim's log time to the handler's first instruction",
        LATENCY_S,
        shows=("0.5", "0.99"),
    ),
)

_LEASES = (
    counter("agent.task.heartbeat.success.total", "Lease renewals accepted"),
    counter(
        "agent.task.heartbeat.guard_reject.total",
        "Lease renewals refused: it is lost",
        alert="StaleWriters",
    ),
    counter(
        "agent.task.heartbeat.error.total",
        "Lease renewals that failed",
        Label(
            "kind",
            (
                "log_unavailable",
                "log_full",
                "too_large",
                "contended",
                "fenced",
                "not_found",
                "not_allowed",
            ),
        ),
    ),
    times(
        "agent.task.lease.remaining_at_renew",
        "What was left of the lease when it was renewed",
        LEASE_S,
    ),
    histogram(
        "agent.task.lease.remaining_at_renew.ratio",
        "Which part of the lease was left when it was renewed",
        LEASE_PARTS,
        unit="ratio",
        shows=("0.05", "0.5"),
        alert="LeaseMarginLow",
    ),
    counter("agent.task.claimed_update.success.total", "Owners' writes accepted", OPERATION),
    counter(
        "agent.task.claimed_update.guard_reject.total",
        "Owners' writes refused: owner or attempt no longer match",
        OPERATION,
        alert="StaleWriters",
    ),
    counter("agent.task.claimed_update.error.total", "Owners' writes that failed", OPERATION),
    gauge("agent.task.expired_running.current", "RUNNING tasks whose lease has expired"),
    gauge(
        "agent.task.expired_running.oldest",
        "How long the oldest expired lease of a RUNNING task has been expired",
        unit="seconds",
        alert="LeasesExpired",
    ),
    counter("agent.task.expired_running.detected.total", "Checks that found expired leases"),
    counter("agent.task.expired_running.check_error.total", "Failed checks for expired leases"),
    gauge(
        "agent.task.expired_running.last_check_timestamp",
        "When expired leases were last looked for, in seconds since the epoch",
        unit="seconds",
    ),
)

_EXECUTIONS = (
    counter("agent.task.execution.total", "Attempts ended", RESULT, TASK_TYPE),
    times(
        "agent.task.execution.duration",
        "From an attempt's start (or claim) to its end",
        WORK_S,
        RESULT,
        TASK_TYPE,
        shows=("0.5", "0.95"),
        by="task_type",
    ),
    counter(
        "agent.task.execution.failure.total",
        "Attempts ended in failure",
        Label("error_type", ERROR_TYPES),
        TASK_TYPE,
    ),
    counter("agent.task.execution.timeout.total", "Attempts that timed out", TASK_TYPE),
    counter("agent.task.execution.timeout.retry.total", "Time-outs that are retried", TASK_TYPE),
    counter("agent.task.execution.timeout.final_fail.total", "Time-outs that are final", TASK_TYPE),
    counter(
        "agent.task.execution.tokens",
        "Language-model tokens reported with results",
        Label("direction", ("input", "output")),
    ),
    gauge(
        "agent.task.backlog.current", "Tasks that can be claimed now", LANE, alert="BacklogGrowing"
    ),
    gauge(
        "agent.plan.unfinished",
        "Share of memory.unfinished_bytes that unfinished plans take; at 1 new plans are refused",
        unit="ratio",
        alert="UnfinishedBytesHigh",
    ),
    gauge(
        "agent.task.backlog.oldest_age",
        "Age of the oldest claimable task",
        LANE,
        unit="seconds",
        alert="ClaimStarved",
    ),
    counter(
        "agent.plan.finished.total",
        "Plans ended",
        Label("status", ("COMPLETED", "FAILED", "CANCELLED")),
    ),
    counter("agent.retention.forgotten.total", "Plans forgotten by retention.finished_days"),
)

_HTTP = (
    counter(
        "agent.http.request.total",
        "Requests answered, by the kind of status: how many succeeded and how many failed",
        Label("status", ("2xx", "4xx", "5xx")),
    ),
    times(
        "agent.http.request.duration",
        "From a request below /v1 to the end of any answer; without event streams; claims wait",
        REQUEST_S,
        Label("route", ("read", "write", "claim")),
        shows=("0.99",),
        by="route",
    ),
    counter(
        "agent.http.token.refused.total",
        "Requests with a token or session that is not known, cut or expired",
    ),
)

_STREAMS = (
    gauge("agent.sse.connections.current", "Open event streams"),
    counter("agent.sse.push.attempt.total", "Events written to clients"),
    counter(
        "agent.sse.push.fail.total",
        "Clients given up because an event or a ping could not be written",
        Label("reason", ("slow_consumer", "disconnected", "error")),
        alert="SsePushFailing",
    ),
    counter(
        "agent.sse.replay.batch.total",
        "Batches read from the log for resuming clients; one that many share counts once",
    ),
    counter("agent.sse.replay.hit.total", "Such batches with events in them"),
    counter("agent.sse.replay.empty.total", "Such batches without events"),
    counter("agent.sse.replay.events.total", "Events in such batches"),
    times(
        "agent.sse.replay.duration",
        "Reading one such batch, the wait for its turn included",
        LATENCY_S,
        shows=("0.5", "0.95"),
        alert="SseReplaySlow",
    ),
    counter(
        "agent.sse.resume.total",
        "Clients that connected",
        Label("outcome", ("fresh", "complete", "gap")),
        alert="SseResumeGaps",
    ),
    times(
        "agent.sse.fanout.latency",
        "From a live event's log time to the write to the last of the clients that share its text",
        LATENCY_S,
        shows=("0.5", "0.99"),
    ),
)

_LOG = (
    counter("agent.log.append.total", "Drafts written to the log"),
    times(
        "agent.log.append.duration",
        "One append, from request to answer",
        LATENCY_S,
        shows=("0.5", "0.99"),
    ),
    histogram("agent.log.append.batch_size", "Messages written by one request", SIZES),
    counter(
        "agent.log.append.error.total",
        "Appends that lost their race or failed",
        Label("kind", ("conflict", "unavailable", "full", "too_large", "crowded")),
        alert="LogUnavailable",
    ),
    gauge(
        "agent.log.filled",
        "Share of the log's bound in bytes that is taken, 0 without one; at 1 facts are refused",
        unit="ratio",
        alert="LogNearlyFull",
    ),
    gauge(
        "agent.log.replicas.behind",
        "Servers whose replica of the log or of the audit trail is silent or behind",
        alert="ReplicaBehind",
    ),
    gauge("agent.projection.sequence", "Log sequence that the read models have reached"),
    gauge("agent.projection.lag.events", "Facts that the read models are behind the board"),
    gauge(
        "agent.projection.lag.seconds",
        "How long the oldest fact not yet in the read models has waited",
        unit="seconds",
        alert="ProjectionLagging",
    ),
    counter(
        "agent.projection.bad_event.total",
        "Facts that could not be read or applied",
        alert="BadEvents",
    ),
    counter(
        "agent.projection.listener_error.total",
        "Failures of what listens to the fold: metrics, audit, event streams, waiting claims",
    ),
    counter(
        "agent.projection.mismatch.total",
        "Differences found by the self-check",
        alert="ProjectionMismatch",
    ),
)

_INTERNALS = (
    times(
        "agent.loop.lag",
        "How late an event loop runs what is due",
        LAG_S,
        LOOP,
        shows=("0.99",),
        by="loop",
        alert="LoopLagHigh",
    ),
    times(
        "agent.daemon.lateness",
        "How late a daemon's tick began",
        LATENESS_S,
        DAEMON,
        shows=("0.99",),
        by="daemon",
        alert="DaemonLate",
    ),
    times("agent.daemon.duration", "How long a daemon's tick took", TICK_S, DAEMON),
    counter("agent.daemon.overrun.total", "Ticks that took longer than their period", DAEMON),
    gauge(
        "agent.daemon.last_success_timestamp",
        "When a daemon last succeeded, in seconds since the epoch",
        DAEMON,
        unit="seconds",
        alert="DaemonLate",
    ),
    counter("agent.audit.written.total", "Audit entries written", Label("event", AUDIT_EVENTS)),
    counter(
        "agent.audit.dropped.total",
        "Audit entries dropped",
        Label("reason", ("queue_full", "refused", "invalid", "shutting_down")),
        alert="AuditDropped",
    ),
)

CATALOGUE: Mapping[str, Metric] = {
    each.name: each
    for metric in (
        *_CLAIMS,
        *_EXECUTOR,
        *_LEASES,
        *_EXECUTIONS,
        *_HTTP,
        *_STREAMS,
        *_LOG,
        *_INTERNALS,
    )
    for each in (metric, metric.recent)
    if each is not None
}  # fmt: skip
"""Every metric by its dotted name."""
