"""The dashboard of the event streams: pushing and replaying."""

from docs.dashboards.drawing import Dashboard, Panel, Query, Row
from docs.dashboards.expressions import AT, now, quantile, rate

_PUSH = Row(
    "Pushing",
    (
        Panel(
            title="Open streams",
            says="Per instance.",
            queries=(Query(now("agent_sse_connections_current"), AT),),
        ),
        Panel(
            title="Events written to clients",
            says="Deliveries per second.",
            queries=(Query(rate("agent_sse_push_attempt_total"), AT),),
            unit="ops",
        ),
        Panel(
            title="From the log to the socket",
            says="From the event's log time to the write to a client.",
            queries=(
                Query(quantile("0.5", "agent_sse_fanout_latency_seconds"), f"{AT} median"),
                Query(quantile("0.99", "agent_sse_fanout_latency_seconds"), f"{AT} p99"),
            ),
            unit="s",
            alarm=0.25,
        ),
        Panel(
            title="Pushes that failed",
            says="By reason; `slow_consumer` stopped reading for ten seconds.",
            queries=(
                Query(
                    rate("agent_sse_push_fail_total", "instance, reason"),
                    "{{instance}} {{reason}}",
                ),
            ),
            unit="ops",
            width=12,
        ),
        Panel(
            title="Clients that connected",
            says="`fresh` had no cursor, `complete` got all it had missed, `gap` could not.",
            queries=(
                Query(
                    rate("agent_sse_resume_total", "instance, outcome"),
                    "{{instance}} {{outcome}}",
                ),
            ),
            unit="ops",
            width=12,
        ),
    ),
)

_REPLAY = Row(
    "Replaying",
    (
        Panel(
            title="Batches read",
            says="A hit held events, an empty one did not; one read for many counts once.",
            queries=(
                Query(rate("agent_sse_replay_batch_total", "job"), "batches"),
                Query(rate("agent_sse_replay_hit_total", "job"), "with events"),
                Query(rate("agent_sse_replay_empty_total", "job"), "empty"),
            ),
            unit="ops",
        ),
        Panel(
            title="Events replayed",
            says="Per second.",
            queries=(Query(rate("agent_sse_replay_events_total"), AT),),
            unit="ops",
        ),
        Panel(
            title="Duration of one batch",
            says="SseReplaySlow looks at the 95th percentile.",
            queries=(
                Query(quantile("0.5", "agent_sse_replay_duration_seconds"), f"{AT} median"),
                Query(quantile("0.95", "agent_sse_replay_duration_seconds"), f"{AT} p95"),
            ),
            unit="s",
            alarm=1,
        ),
    ),
)

EVENT_STREAMS = Dashboard(
    uid="holdfast-sse",
    title="Holdfast: event streams",
    says="Pushing and replaying server-sent events.",
    rows=(_PUSH, _REPLAY),
)
