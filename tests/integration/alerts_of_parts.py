"""Stories of alerts on the parts of an instance: its event streams, loops, log and database."""

from tests.integration.alert_case import INSTANCE, Case, shares
from tests.integration.alert_story import Fires

LATE = "agent_daemon_lateness_seconds"
LAST = "agent_daemon_last_success_timestamp_seconds"
REPLAY = "agent_sse_replay_duration_seconds"
LAG = "agent_loop_lag_seconds"
POLLS = "agent_task_claim_poll_total"
SLOW_CLIENTS = 'agent_sse_push_fail_total{reason="slow_consumer"}'
GONE_CLIENTS = 'agent_sse_push_fail_total{reason="disconnected"}'
STREAMS = "agent_sse_connections_current"
APPEND_ERROR = "agent_log_append_error_total"
BEHIND = "agent_log_replicas_behind"
FILLED = "agent_log_filled_ratio"

OF_PARTS = [
    # -- server-sent events ---------------------------------------------------------------------
    Case(
        alert="SsePushFailing",
        why="ten of a hundred clients stopped reading",
        series={SLOW_CLIENTS: "0x4 10x40", STREAMS: "100x44"},
        after="4m",
        fires=Fires("a had to cut off 10 event streams in five minutes", INSTANCE),
    ),
    Case(
        alert="SsePushFailing",
        why="tabs are closed while events are on their way",
        series={GONE_CLIENTS: "0+10x40", SLOW_CLIENTS: "0x40", STREAMS: "100x40"},
        after="4m",
    ),
    Case(
        alert="SsePushFailing",
        why="ten of five thousand phones fell asleep",
        series={SLOW_CLIENTS: "0x4 10x40", STREAMS: "5000x44"},
        after="4m",
    ),
    Case(
        alert="SseResumeGaps",
        why="a client comes back with a cursor of another log",
        series={'agent_sse_resume_total{outcome="gap"}': "0x10 1x50"},
        after="10m",
        fires=Fires("1 clients came back with a cursor that the log cannot honour"),
    ),
    Case(
        alert="SseResumeGaps",
        why="hundreds come back and all are made whole",
        series={
            'agent_sse_resume_total{outcome="gap"}': "0x60",
            'agent_sse_resume_total{outcome="complete"}': "0x10 400x50",
        },
        after="10m",
    ),
    Case(
        alert="SseReplaySlow",
        why="a tenth of the batches takes longer than a second",
        series=shares(REPLAY, "", ("1.0", 9), 10),
        after="8m",
        fires=Fires(
            "Reading a batch for a resuming client takes 5.5s (95th percentile) at a", INSTANCE
        ),
    ),
    Case(
        alert="SseReplaySlow",
        why="one batch in fifty does",
        series=shares(REPLAY, "", ("1.0", 49), 50),
        after="8m",
    ),
    # -- the internals -----------------------------------------------------------------------
    Case(
        alert="DaemonLate",
        why="the lease monitor has stopped succeeding",
        series={f'{LAST}{{daemon="lease_monitor"}}': "0+15x4 60x40"},
        after="4m",
        fires=Fires(
            "The daemon lease_monitor of a is late or does not succeed (180)",
            INSTANCE | {"daemon": "lease_monitor"},
        ),
    ),
    Case(
        alert="DaemonLate",
        why="one ticks and never succeeded",
        series={f'{LATE}_count{{daemon="plan_closer"}}': "0+15x40"},
        after="4m",
        fires=Fires(
            "The daemon plan_closer of a is late or does not succeed (240)",
            INSTANCE | {"daemon": "plan_closer"},
        ),
    ),
    Case(
        alert="DaemonLate",
        why="one succeeds and begins seconds late",
        series={f'{LAST}{{daemon="lease_monitor"}}': "0+15x40"}
        | shares(LATE, 'daemon="lease_monitor"', ("0.5", 8), 10),
        after="8m",
        fires=Fires(
            "The daemon lease_monitor of a is late or does not succeed (9.525)",
            INSTANCE | {"daemon": "lease_monitor"},
        ),
    ),
    Case(
        alert="DaemonLate",
        why="it succeeds, in time",
        series={f'{LAST}{{daemon="lease_monitor"}}': "0+15x40"}
        | shares(LATE, 'daemon="lease_monitor"', ("0.5", 1000), 1000),
        after="8m",
    ),
    Case(
        alert="DaemonLate",
        why="log and database are gone, which is the business of other alerts",
        series={
            f'{LAST}{{daemon="log_probe"}}': "0x40",
            f'{LAST}{{daemon="database_probe"}}': "0x40",
        },
        after="8m",
    ),
    Case(
        alert="LoopLagHigh",
        why="the API loop is held up once in twenty samples",
        series=shares(LAG, 'loop="api"', ("0.25", 57), 60),
        after="8m",
        fires=Fires(
            "The api loop of a runs 8.05s late (99th percentile)", INSTANCE | {"loop": "api"}
        ),
    ),
    Case(
        alert="LoopLagHigh",
        why="it is held up once in two hundred",
        series=shares(LAG, 'loop="api"', ("0.25", 199), 200),
        after="8m",
    ),
    Case(
        alert="ProjectionLagging",
        why="SQLite takes nothing for a minute",
        series={"agent_projection_lag_seconds": "0 0+15x10"},
        after="1m30s",
        fires=Fires("The database of a has taken nothing for 1m 15s", INSTANCE),
    ),
    Case(
        alert="ProjectionLagging",
        why="nothing is written, and the file is locked",
        series={
            "agent_projection_lag_seconds": "0x20",
            f'{LAST}{{daemon="database_probe"}}': "0+15x4 60x20",
        },
        after="2m30s",
        fires=Fires("The database of a has taken nothing for 1m 30s", INSTANCE),
    ),
    Case(
        alert="ProjectionLagging",
        why="a check-point takes ten seconds",
        series={"agent_projection_lag_seconds": "0 10 0 0 10 0 0"},
        after="1m15s",
    ),
    Case(
        alert="ProjectionMismatch",
        why="the self-check found two differences",
        series={"agent_projection_mismatch_total": "0x10 2x60"},
        after="15m",
        fires=Fires(
            "The self-check of a found 2 differences between its views and the log", INSTANCE
        ),
    ),
    Case(
        alert="ProjectionMismatch",
        why="the self-check found none",
        series={"agent_projection_mismatch_total": "0x70"},
        after="15m",
    ),
    Case(
        alert="BadEvents",
        why="a message was published by hand, and both instances saw it",
        series={
            "agent_projection_bad_event_total": "0x40 1x30",
            'agent_projection_bad_event_total{instance="b"}': "0x40 1x30",
        },
        after="15m",
        fires=Fires(
            "1 messages stand in the log of holdfast that cannot be read or applied"
        ),
    ),
    Case(
        alert="BadEvents",
        why="one was seen long ago",
        series={"agent_projection_bad_event_total": "1x70"},
        after="15m",
    ),
    Case(
        alert="LogUnavailable",
        why="appends fail",
        series={f'{APPEND_ERROR}{{kind="unavailable"}}': "0x4 1+1x20"},
        after="2m",
        fires=Fires("The log does not answer a", INSTANCE),
    ),
    Case(
        alert="LogUnavailable",
        why="nothing is written, and the probe does not get through",
        series={f'{LAST}{{daemon="log_probe"}}': "0+15x4 60x20"},
        after="2m",
        fires=Fires("The log does not answer a", INSTANCE),
    ),
    Case(
        alert="LogUnavailable",
        why="writers lose races, the probe gets through",
        series={
            f'{APPEND_ERROR}{{kind="conflict"}}': "0+50x20",
            f'{APPEND_ERROR}{{kind="unavailable"}}': "0x20",
            f'{LAST}{{daemon="log_probe"}}': "0+15x20",
        },
        after="3m",
    ),
    Case(
        alert="ReplicaBehind",
        why="a server is silent for longer than a minute; both instances see it",
        series={BEHIND: "0x4 1x20", f'{BEHIND}{{instance="b"}}': "0x4 1x20"},
        after="4m",
        fires=Fires("Servers that do not keep up with the log of holdfast: 1"),
    ),
    Case(
        alert="ReplicaBehind",
        why="servers are restarted one after the other",
        series={BEHIND: "0 1 0 1 0 1 0x20"},
        after="5m",
    ),
    Case(
        alert="LogNearlyFull",
        why="the log has passed four fifths of its bound",
        series={FILLED: "0.7 0.75 0.79 0.85x20", f'{FILLED}{{instance="b"}}': "0.7x3 0.84x20"},
        after="3m",
        fires=Fires("The log of holdfast holds 85% of the bytes that it may"),
    ),
    Case(
        alert="LogNearlyFull",
        why="four fifths are not passed, or no bound is known",
        series={FILLED: "0.8x24", f'{FILLED}{{instance="b"}}': "0x24"},
        after="5m",
    ),
    Case(
        alert="LogFull",
        why="one fact was refused",
        series={f'{APPEND_ERROR}{{kind="full"}}': "0x4 1x20"},
        after="3m",
        fires=Fires("The log of holdfast refuses new facts because it is full"),
    ),
    Case(
        alert="LogFull",
        why="facts are refused for being too large",
        series={
            f'{APPEND_ERROR}{{kind="full"}}': "0x20",
            f'{APPEND_ERROR}{{kind="too_large"}}': "0+1x20",
        },
        after="3m",
    ),
    Case(
        alert="AuditDropped",
        why="the queue ran over",
        series={'agent_audit_dropped_total{reason="queue_full"}': "0x10 3x40"},
        after="10m",
        fires=Fires(
            "3 audit entries were dropped at a (queue_full)",
            INSTANCE | {"reason": "queue_full"},
        ),
    ),
    Case(
        alert="AuditDropped",
        why="a process ended before it had written all",
        series={'agent_audit_dropped_total{reason="shutting_down"}': "0x10 3x40"},
        after="10m",
    ),
    Case(
        alert="MetricsMissing",
        why="an instance does not answer",
        series={"up": "1x2 0x20", POLLS: "1x2"},
        after="3m",
        fires=Fires("There are no metrics of a", INSTANCE),
    ),
    Case(
        alert="MetricsMissing",
        why="no instance is known",
        series={'up{job="other"}': "1x20"},
        after="3m",
        fires=Fires("There are no metrics of any instance"),
    ),
    Case(
        alert="MetricsMissing",
        why="something else answers on that port",
        series={"up": "1x20"},
        after="3m",
        fires=Fires("There are no metrics of a", INSTANCE),
    ),
    Case(
        alert="MetricsMissing",
        why="an instance was restarted within 45 seconds",
        series={"up": "1x4 0x3 1x12", POLLS: "0+1x4 _x3 0+1x12"},
        after="2m",
    ),
]  # fmt: skip
