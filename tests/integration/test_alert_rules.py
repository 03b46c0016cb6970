"""Every alert fires on its trouble and keeps still in the healthy case that looks most like it.

The rules are run by promtool; that they fire on real faults is for tests/faults/test_prometheus.py.
"""

import subprocess
from pathlib import Path

import msgspec
import yaml

from service.signals.metrics.catalogue import CATALOGUE
from tests.integration.alert_story import HERE, RULES, Fires, Series, Story, alert_rules, told
from tests.programs import program
from tests.unit.test_catalogue import every_combination
from tests.unit.test_ops import EVERYWHERE

INSTANCE = {"instance": "a"}
LATE = "agent_daemon_lateness_seconds"
LAST = "agent_daemon_last_success_timestamp_seconds"
RENEW = "agent_task_lease_remaining_at_renew_ratio"
REPLAY = "agent_sse_replay_duration_seconds"
LAG = "agent_loop_lag_seconds"
BACKLOG = 'agent_task_backlog_current{lane="ready"}'
BACKLOG_AT_B = 'agent_task_backlog_current{instance="b",lane="ready"}'
OLDEST = 'agent_task_backlog_oldest_age_seconds{lane="ready"}'
CLAIMED = "agent_task_claim_success_total"
EMPTY, POLLS = "agent_task_claim_empty_total", "agent_task_claim_poll_total"
EXPIRED = "agent_task_expired_running_oldest_seconds"
RESULT_REFUSED = 'agent_task_claimed_update_guard_reject_total{op="complete"}'
BEAT_REFUSED = "agent_task_heartbeat_guard_reject_total"
CANCELLED = 'agent_task_execution_total{result="cancelled",task_type="worker"}'
SLOW_CLIENTS = 'agent_sse_push_fail_total{reason="slow_consumer"}'
GONE_CLIENTS = 'agent_sse_push_fail_total{reason="disconnected"}'
STREAMS = "agent_sse_connections_current"
APPEND_ERROR = "agent_log_append_error_total"
BEHIND = "agent_log_replicas_behind"
FILLED, UNFINISHED = "agent_log_filled_ratio", "agent_plan_unfinished_ratio"


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One story. ``fires`` is None where the alert must keep still."""

    alert: str
    why: str
    series: Series
    after: str
    fires: Fires | None = None


def pool(running: int, queued: int = 0, capacity: int = 8) -> Series:
    return {
        "agent_task_worker_inflight_current": f"{running}x40",
        "agent_task_worker_queue_current": f"{queued}x40",
        "agent_task_worker_capacity": f"{capacity}x40",
    }


def shares(name: str, labels: str, low: tuple[str, int], everything: int) -> Series:
    """A histogram of which a share per minute falls under ``low``'s bound."""
    bound, under = low
    comma = "," if labels else ""
    total = f"0+{everything}x40"
    return {
        f'{name}_bucket{{{labels}{comma}le="{bound}"}}': f"0+{under}x40",
        f'{name}_bucket{{{labels}{comma}le="10.0"}}': total,
        f'{name}_bucket{{{labels}{comma}le="+Inf"}}': total,
        f"{name}_count{{{labels}}}": total,
    }


CASES = [
    # -- claiming -------------------------------------------------------------------------------
    Case(
        alert="ClaimStarved",
        why="a task waits and no worker claims",
        series={OLDEST: "0+15x40", CLAIMED: "7x40"},
        after="4m",
        fires=Fires("The oldest claimable task has waited for 4m 0s"),
    ),
    Case(
        alert="ClaimStarved",
        why="others are claimed, one is passed over for ten minutes",
        series={OLDEST: "0+15x60", CLAIMED: "0+15x60"},
        after="12m",
        fires=Fires("The oldest claimable task has waited for 12m 0s"),
    ),
    Case(
        alert="ClaimStarved",
        why="a queue is long and is being worked off",
        series={OLDEST: "0+15x30", CLAIMED: "0+15x30"},
        after="7m",
    ),
    Case(
        alert="ClaimSpinning",
        why="a worker polls 100 times a second and gets nothing",
        series={EMPTY: "0+1500x60", POLLS: "0+1515x60"},
        after="11m",
        fires=Fires("a answers 100 claims per second with nothing", INSTANCE),
    ),
    Case(
        alert="ClaimSpinning",
        why="1,200 workers wait 30 s each and nothing comes",
        series={EMPTY: "0+600x60", POLLS: "0+600x60"},
        after="11m",
    ),
    Case(
        alert="ClaimSpinning",
        why="under load a fifth of many claims is empty",
        series={EMPTY: "0+1500x60", POLLS: "0+7500x60"},
        after="11m",
    ),
    # -- leases ---------------------------------------------------------------------------------
    Case(
        alert="LeasesExpired",
        why="a lease expired and no worker takes the task over",
        series={EXPIRED: "0 0+15x20", f'{EXPIRED}{{instance="b"}}': "0 0+15x20"},
        after="2m",
        fires=Fires(
            "A RUNNING task's lease has been expired for 1m 45s and no worker takes it over"
        ),
    ),
    Case(
        alert="LeasesExpired",
        why="leases expire and each is taken over within half a minute",
        series={EXPIRED: "0 15 30 0 15 30 0 15 30 0 15 30"},
        after="2m30s",
    ),
    Case(
        alert="LeaseMarginLow",
        why="every tenth renewal comes with less than a fifth of the lease left",
        series=shares(RENEW, "", ("0.2", 2), 20),
        after="8m",
        fires=Fires(
            "10% of the lease renewals at a came with less than a fifth of the lease left", INSTANCE
        ),
    ),
    Case(
        alert="LeaseMarginLow",
        why="one in fifty does",
        series=shares(RENEW, "", ("0.2", 1), 50),
        after="8m",
    ),
    Case(
        alert="LeaseMarginLow",
        why="nothing is renewed at all",
        series=shares(RENEW, "", ("0.2", 0), 0),
        after="8m",
    ),
    Case(
        alert="StaleWriters",
        why="one worker reports a result for a lease that is no longer its own",
        series={RESULT_REFUSED: "0x10 1x50", BEAT_REFUSED: "0x60", CANCELLED: "0x60"},
        after="10m",
        fires=Fires("1 writes of owners that had lost their lease were refused in ten minutes"),
    ),
    Case(
        alert="StaleWriters",
        why="a plan was cancelled and its 20 workers learn it",
        series={RESULT_REFUSED: "0x10 5x50", BEAT_REFUSED: "0x10 20x50", CANCELLED: "0x10 20x50"},
        after="10m",
    ),
    # -- capacity -------------------------------------------------------------------------------
    Case(
        alert="DispatchRejecting",
        why="the pool is full and tasks wait for longer and longer",
        series=pool(8) | {OLDEST: "0+15x40"},
        after="9m",
        fires=Fires(
            "The worker pool of a takes no more tasks while claimable ones wait", INSTANCE
        ),
    ),
    Case(
        alert="DispatchRejecting",
        why="it refuses what it has claimed",
        series=pool(2) | {'agent_task_dispatch_reject_total{reason="full"}': "0+15x40"},
        after="9m",
        fires=Fires(
            "The worker pool of a takes no more tasks while claimable ones wait", INSTANCE
        ),
    ),
    Case(
        alert="DispatchRejecting",
        why="it is busy and keeps up",
        series=pool(8) | {OLDEST: "5x40"},
        after="9m",
    ),
    Case(
        alert="DispatchRejecting",
        why="an instance without an executor has no room, and tasks of others wait",
        series=pool(0, 0, 0) | {OLDEST: "0+15x40"},
        after="9m",
    ),
    Case(
        alert="DispatchRejecting",
        why="it drains",
        series=pool(2) | {'agent_task_dispatch_reject_total{reason="draining"}': "0+15x40"},
        after="9m",
    ),
    Case(
        alert="HandlersOverrun",
        why="two handlers have been running on for a minute and a half",
        series={"agent_task_worker_overrun_current": "0x4 2x20"},
        after="3m",
        fires=Fires("2 handlers at a run on although their attempt is over", INSTANCE),
    ),
    Case(
        alert="HandlersOverrun",
        why="one ran on for half a minute",
        series={"agent_task_worker_overrun_current": "0x4 1x1 0x20"},
        after="3m",
    ),
    Case(
        alert="UnfinishedBytesHigh",
        why="unfinished plans have taken nine tenths of their memory for more than a minute",
        series={UNFINISHED: "0.5x4 0.9x20", f'{UNFINISHED}{{instance="b"}}': "0.5x4 0.9x20"},
        after="3m",
        fires=Fires("Unfinished plans of holdfast take 90% of the memory that they may"),
    ),
    Case(
        alert="UnfinishedBytesHigh",
        why="a large plan came and ended within half a minute",
        series={UNFINISHED: "0.5x4 0.95x1 0.5x20"},
        after="3m",
    ),
    Case(
        alert="BacklogGrowing",
        why="more comes in than is claimed, for a quarter of an hour",
        series={BACKLOG: "0+15x80", BACKLOG_AT_B: "0+15x80"},
        after="19m",
        fires=Fires("1.14k claimable tasks wait, and there are ever more of them"),
    ),
    Case(
        alert="BacklogGrowing",
        why="10,000 tasks came at once and are worked off",
        series={BACKLOG: "0x10 10000-20x70"},
        after="14m",
    ),
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


def test_an_alert_fires_on_its_trouble_and_not_on_what_looks_like_it(tmp_path: Path) -> None:
    told(
        tmp_path,
        (
            Story(
                name=f"{case.alert}: {case.why}",
                series=case.series,
                after=case.after,
                expected={case.alert: [case.fires] if case.fires else []},
            )
            for case in CASES
        ),
    )


def test_every_alert_has_a_story_of_each_kind() -> None:
    alerts = set(alert_rules())
    assert {case.alert for case in CASES if case.fires} == alerts
    assert {case.alert for case in CASES if not case.fires} == alerts


def test_the_rules_are_valid() -> None:
    check = [program("promtool"), "check", "rules", "--lint=all", "--lint-fatal", str(RULES)]
    done = subprocess.run(check, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_dashboards_and_the_runbook_ask_can_be_asked(tmp_path: Path) -> None:
    """Prometheus's own parser reads every expression."""
    rules = [
        {"record": f"asked:{number}", "expr": asked.replace("$__rate_interval", "5m")}
        for number, (_, asked) in enumerate(EVERYWHERE)
    ]
    path = tmp_path / "asked.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": rules}]}))
    check = [program("promtool"), "check", "rules", str(path)]
    done = subprocess.run(check, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(EVERYWHERE)} rules found" in done.stdout


def test_the_example_for_prometheus_is_valid() -> None:
    check = [program("promtool"), "check", "config", str(RULES.with_name("prometheus.yml"))]
    done = subprocess.run(check, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_idle_healthy_system_fires_nothing(tmp_path: Path) -> None:
    told(tmp_path, [still("idle", idle(), "90m", step="1m")])


def test_a_restart_fires_nothing(tmp_path: Path) -> None:
    """An instance that has counted much is gone for 45 seconds and counts from 0 again."""
    restarted: Series = {}
    for name, values in idle().items():
        if name == "up":
            restarted[name] = "1x40 0x3 1x37"
        elif name.startswith(LAST):
            restarted[name] = "0+15x40 _x3 645+15x37"
        elif name.partition("{")[0].endswith(("_total", "_bucket", "_count")):
            restarted[name] = "5000x40 _x3 0x37"
        else:
            restarted[name] = f"{values.split('x')[0]}x40 _x3 0x37"
    moments = ("9m", "10m30s", "11m", "12m", "14m", "20m")
    told(tmp_path, [still(f"{after} later", restarted, after) for after in moments])


def still(name: str, series: Series, after: str, step: str = "15s") -> Story:
    """No alert at all."""
    nothing: dict[str, list[Fires]] = {alert: [] for alert in alert_rules()}
    return Story(name=name, series=series, after=after, expected=nothing, step=step)


def idle() -> Series:
    """All that one instance shows when nothing happens; daemons succeed."""
    series: Series = {"up": "1x100"}
    for metric in CATALOGUE.values():
        for labels in every_combination(metric):
            if "surprise" in labels.values():
                continue
            text = ",".join(f'{key}="{value}"' for key, value in (HERE | labels).items())
            if metric.kind == "histogram":
                for bound in (*metric.buckets, "+Inf"):
                    series[f'{metric.prometheus_name}_bucket{{{text},le="{bound}"}}'] = "0x100"
                series[f"{metric.prometheus_name}_count{{{text}}}"] = "0x100"
            else:
                moves = metric.name == "agent.daemon.last_success_timestamp"
                series[f"{metric.prometheus_name}{{{text}}}"] = "0+60x100" if moves else "0x100"
    return series
