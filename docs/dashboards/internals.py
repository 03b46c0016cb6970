"""The dashboard of the internals: the log, the read models, loops and daemons."""

from docs.dashboards.drawing import Dashboard, Panel, Query, Row
from docs.dashboards.expressions import AT, mean, now, quantile, rate

_LOG = Row(
    "The log",
    (
        Panel(
            title="Facts appended",
            says="Per second.",
            queries=(Query(rate("agent_log_append_total"), AT),),
            unit="ops",
        ),
        Panel(
            title="Duration of appends",
            says="From request to answer: the disk, and the network to the log.",
            queries=(
                Query(quantile("0.5", "agent_log_append_duration_seconds"), f"{AT} median"),
                Query(quantile("0.99", "agent_log_append_duration_seconds"), f"{AT} p99"),
            ),
            unit="s",
        ),
        Panel(
            title="Messages per request",
            says="Group commit: the mean, which grows with the load.",
            queries=(Query(mean("agent_log_append_batch_size"), AT),),
        ),
        Panel(
            title="Appends that lost or failed",
            says="`conflict` is decided again; `unavailable` and `full` are alerts.",
            queries=(Query(rate("agent_log_append_error_total", "kind"), "{{kind}}"),),
            unit="ops",
        ),
        Panel(
            title="Plans forgotten",
            says="Per second, by `retention.finished_days`; RetentionBehind.",
            queries=(Query(rate("agent_retention_forgotten_total"), AT),),
            unit="ops",
        ),
        Panel(
            title="Sequence reached by the read models",
            says="Grows with the log; a flat line under load is a stuck projector.",
            queries=(Query(now("agent_projection_sequence"), AT),),
        ),
        Panel(
            title="Facts behind",
            says="Folded by the board and not yet in SQLite.",
            queries=(Query(now("agent_projection_lag_events"), AT),),
        ),
        Panel(
            title="Servers that do not keep up",
            says="Replicas of the log or the audit trail, silent or behind; ReplicaBehind.",
            queries=(Query(now("agent_log_replicas_behind"), AT),),
            alarm=1,
        ),
        Panel(
            title="How full",
            unit="percentunit",
            says="Shares of the bounds; at 1 the log refuses facts (507), memory new plans (429).",
            queries=(
                Query(now("agent_log_filled_ratio"), f"log {AT}"),
                Query(now("agent_plan_unfinished_ratio"), f"unfinished plans {AT}"),
            ),
        ),
    ),
)

_HTTP = Row(
    "HTTP",
    (
        Panel(
            title="Requests answered",
            says="Per second, by the kind of status. `5xx` are faults; the log names them.",
            queries=(Query(rate("agent_http_request_total", "status"), "{{status}}"),),
            unit="ops",
        ),
        Panel(
            title="Duration of requests",
            says="99th percentile below `/v1`, whatever the status; claims wait as long as asked.",
            queries=(
                Query(
                    quantile("0.99", "agent_http_request_duration_seconds", "route"), "{{route}}"
                ),
            ),
            unit="s",
        ),
        Panel(
            title="Mean duration of requests",
            says="Below `/v1`, event streams left out.",
            queries=(Query(mean("agent_http_request_duration_seconds", "route"), "{{route}}"),),
            unit="s",
        ),
        Panel(
            title="Tokens refused",
            says="Per second. The audit event `token_refused` says from which addresses and why.",
            queries=(Query(rate("agent_http_token_refused_total", "instance"), "{{instance}}"),),
            unit="ops",
        ),
    ),
)

_DAEMONS = Row(
    "Loops and daemons",
    (
        Panel(
            title="Lag of each loop",
            says="99th percentile, per instance.",
            queries=(
                Query(
                    quantile("0.99", "agent_loop_lag_seconds", "instance, loop"),
                    "{{instance}} {{loop}}",
                ),
            ),
            unit="s",
            alarm=0.25,
        ),
        Panel(
            title="Lateness of daemons",
            says="99th percentile; a tenth of the period is the aim. DaemonLate.",
            queries=(
                Query(quantile("0.99", "agent_daemon_lateness_seconds", "daemon"), "{{daemon}}"),
            ),
            unit="s",
            alarm=0.5,
        ),
        Panel(
            title="Last success of daemons",
            says="Seconds ago. DaemonLate fires after 60 s.",
            queries=(
                Query(
                    f"time() - {now('agent_daemon_last_success_timestamp_seconds')}",
                    "{{instance}} {{daemon}}",
                ),
            ),
            unit="s",
            alarm=60,
        ),
        Panel(
            title="Duration of ticks",
            says="The mean.",
            queries=(Query(mean("agent_daemon_duration_seconds", "daemon"), "{{daemon}}"),),
            unit="s",
        ),
        Panel(
            title="Ticks longer than their period",
            says="An overrun skips ticks; ticks never overlap.",
            queries=(Query(rate("agent_daemon_overrun_total", "daemon"), "{{daemon}}"),),
            unit="ops",
        ),
        Panel(
            title="Self-check, bad events and listeners",
            says="ProjectionMismatch and BadEvents, and failures of what listens to the fold: 0.",
            queries=(
                Query(now("agent_projection_mismatch_total"), f"{AT} mismatches"),
                Query(now("agent_projection_bad_event_total"), f"{AT} bad events"),
                Query(now("agent_projection_listener_error_total"), f"{AT} listener failures"),
            ),
        ),
        Panel(
            title="Audit entries",
            says="Written, by event.",
            queries=(Query(rate("agent_audit_written_total", "event"), "{{event}}"),),
            unit="ops",
            width=16,
        ),
        Panel(
            title="Audit entries dropped",
            says="AuditDropped: the trail has a hole.",
            queries=(Query(rate("agent_audit_dropped_total", "reason"), "{{reason}}"),),
            unit="ops",
        ),
    ),
)

INTERNALS = Dashboard(
    uid="holdfast-internals",
    title="Holdfast: internals",
    says="The log, the read models, loops and daemons.",
    rows=(_LOG, _DAEMONS, _HTTP),
)
