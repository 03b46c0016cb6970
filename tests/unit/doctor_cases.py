"""Evidence for each finding of the doctor, and the healthy near-miss beside it."""

from typing import Any

from msgspec.structs import replace

from service.executor.hosts.status import HostState, HostStatus
from service.executor.running.overruns import OverrunningHandler
from service.ops.doctor.evidence import BadEvent, Evidence, Loop
from service.ops.doctor.report import Severity
from streams.log import ReplicaTrouble
from tests.unit.doctor_evidence import (
    WELL,
    daemon,
    expired,
    stale,
    waiting,
    well,
    window,
)

CLAIMS = "agent__task__claim__"
LATE = ReplicaTrouble(stream="blue-PLANS", node="n3", silent=True, for_s=12.3, lag=40)
HOST_REPLACED = "agent__task__worker__host__replaced__total"


def polls(total: float, claimed: float, empty: float, conflicts: float = 0) -> dict[str, float]:
    return {
        f"{CLAIMS}poll__total": total,
        f"{CLAIMS}success__total": claimed,
        f"{CLAIMS}empty__total": empty,
        f"{CLAIMS}conflict__total": conflicts,
    }


def claims(*, age_s: float = 0.0, tasks: int = 0, recent: dict[str, float]) -> Evidence:
    return well(
        "claiming",
        recent=window(60.0, **recent),
        ready=tasks,
        oldest_age_s=age_s,
        waiting=(waiting(tasks=tasks, age_s=age_s),) if tasks else (),
        own_kinds=("echo",),
    )


def kind_waits(kind: str = "rendr", **changed: Any) -> Evidence:
    """Other kinds are claimed all the time; this one waits."""
    recent = window(60.0, **polls(60, 55, 5))
    known = ("echo", "render", "sum")
    one = waiting(kind, **{"age_s": 11.0, "asked_s": None, **changed})
    return well(
        "claiming", recent=recent, ready=3, waiting=(one,), own_kinds=("echo",), known_kinds=known
    )


def load(before: int, backlog: int, claimed: float, ended: int) -> Evidence:
    return well(
        "load",
        window=window(60.0, **{f"{CLAIMS}success__total": claimed}),
        backlog=backlog,
        backlog_before=before,
        ended=ended,
    )


def host(state: HostState) -> HostStatus:
    return HostStatus(pid=7, state=state, running=1, overrunning=0, memory_bytes=50_000_000)


def overrun(handlers: int, threads: int) -> Evidence:
    each = OverrunningHandler(
        handler="mine.crawl", kind="crawl", plan_id="p", task_id="t", attempt=1, reason="timeout",
        for_s=12.0,
    )  # fmt: skip
    return well("load", overruns=(each,) * handlers, threads=threads, in_flight=threads)


def appends(*, slow: float, total: float) -> Evidence:
    took = {"0.1": total - slow, "0.25": total - slow, "+Inf": total}
    return machine(agent__log__append__duration=took)


def renewals(low: float, total: float) -> Evidence:
    left = {"0.2": low, "0.4": low, "+Inf": total}
    return well("leases", window=window(300, agent__task__lease__remaining_at_renew__ratio=left))


def refused(entries: object, count: float = 1) -> Evidence:
    counted = window(300, agent__task__claimed_update__guard_reject__total={"complete": count})
    return well("writers", window=counted, entries=entries)


def machine(**counted: float | dict[str, float]) -> Evidence:
    return well("machine", window=window(60, **counted))


def lagging(late: float, total: float) -> Evidence:
    return machine(agent__loop__lag={"api|0.1": total - late, "api|+Inf": total})


def streams(**counted: float | dict[str, float]) -> Evidence:
    return well("streams", window=window(300, **counted))


def replays(slow: float, total: float) -> Evidence:
    return streams(agent__sse__replay__duration={"0.5": total - slow, "+Inf": total})


def pushes(reason: str, failed: float, tried: float) -> Evidence:
    return streams(
        agent__sse__push__attempt__total=tried, agent__sse__push__fail__total={reason: failed}
    )


def rejects(reason: str, count: float) -> Evidence:
    counted = {
        "agent__task__dispatch__reject__total": {reason: count},
        "agent__task__dispatch__success__total": {"": 10.0},
    }
    return well("load", window=window(60, **counted))


def log_is(**changed: object) -> Evidence:
    return well("machine", log=replace(WELL.machine.log, **changed))


def database_is(**changed: object) -> Evidence:
    return well("machine", database=replace(WELL.machine.database, **changed))


CASES: list[tuple[str, Severity, Evidence, Evidence]] = [
    # No worker asks for what waits; the near-miss: it has waited for a moment only.
    ("ClaimStarved", "warning", claims(age_s=31, tasks=3, recent=polls(60, 0, 60)),
     claims(age_s=29, tasks=3, recent=polls(60, 0, 60))),
    # Claims go on, but workers go empty while it waits; the near-miss: none goes empty.
    ("ClaimStarved", "warning", claims(age_s=99, tasks=3, recent=polls(60, 10, 50)),
     claims(age_s=99, tasks=3, recent=polls(60, 60, 0))),
    ("KindWithoutWorker", "warning", kind_waits(), kind_waits(age_s=9.0)),
    ("KindWithoutWorker", "warning", kind_waits(asked_s=11.0), kind_waits(asked_s=9.0)),
    # Its workers are busy; or a handler here takes it when there is room.
    ("KindWithoutWorker", "warning", kind_waits(), kind_waits(running=1)),
    ("KindWithoutWorker", "warning", kind_waits(), kind_waits(kind="echo")),
    ("ClaimContended", "warning", claims(recent=polls(90, 90, 0, conflicts=10)),
     claims(recent=polls(90, 91, 0, conflicts=9))),
    ("ClaimSpinning", "warning", claims(recent=polls(601, 0, 601)),
     claims(recent=polls(599, 0, 599))),
    ("LeasesExpired", "warning", well("leases", expired=(expired(5.1),), expired_count=1),
     well("leases", expired=(expired(4.9),), expired_count=1)),
    ("LeasesExpired", "critical", well("leases", expired=(expired(301),), expired_count=1), WELL),
    ("LeaseMarginLow", "warning", renewals(low=2, total=20), renewals(low=1, total=20)),
    ("StaleWriters", "warning", refused((stale(),)),
     # An owner whose plan was cancelled gets a refusal; its lease was not taken over.
     refused((stale(new_owner=None, new_attempt=1, status="CANCELLED"),))),
    ("StaleWriters", "warning", refused((), count=1), refused((), count=0)),
    # Without the audit trail the counter has to do.
    ("StaleWriters", "warning", refused(None), refused(None, count=0)),
    ("DispatchRejecting", "warning", rejects("full", 1), rejects("draining", 50)),
    ("WorkerHostsEnd", "warning", well("load", window=window(300, **{HOST_REPLACED: 1.0})),
     well("load", window=window(300, **{HOST_REPLACED: 0.0}), hosts=(host("retiring"),))),
    ("WorkerHostsEnd", "warning", well("load", hosts=(host("ready"), host("silent"))),
     well("load", hosts=(host("ready"), host("starting")))),
    ("HandlersOverrun", "warning", overrun(1, threads=4), overrun(0, threads=4)),
    ("HandlersOverrun", "critical", overrun(4, threads=4), overrun(0, threads=4)),
    ("BacklogGrowing", "warning", load(10, 40, claimed=50, ended=50),
     load(10, 29, claimed=50, ended=50)),
    ("UnfinishedBytesHigh", "warning",
     well("load", unfinished_bytes=80, most_unfinished_bytes=100),
     well("load", unfinished_bytes=79, most_unfinished_bytes=100)),
    ("SsePushFailing", "warning", pushes("slow_consumer", 2, 100),
     pushes("disconnected", 90, 100)),
    ("SseResumeGaps", "warning", streams(agent__sse__resume__total={"gap": 1.0}),
     streams(agent__sse__resume__total={"complete": 9.0, "fresh": 2.0})),
    ("SseReplaySlow", "warning", replays(slow=1, total=10), replays(slow=1, total=11)),
    # Stuck in a tick is worse than failing, which says why and tries again.
    ("DaemonLate", "critical", well("machine", daemons=(daemon(trouble="holds", stuck=True),)),
     well("machine", daemons=(daemon(stuck=True),))),
    ("DaemonLate", "warning", well("machine", daemons=(daemon(trouble="why"),)), WELL),
    ("LoopLagHigh", "warning", lagging(late=5, total=100), lagging(late=4, total=100)),
    ("LoopLagHigh", "warning", well("machine", loops=(Loop(name="api", lag_s=1.2),)),
     well("machine", loops=(Loop(name="api", lag_s=0.9),))),
    ("LogUnavailable", "critical", log_is(answers=False, detail="paused"),
     log_is(detail="was away")),
    ("LogFull", "critical", machine(agent__log__append__error__total={"full": 1.0}),
     machine(agent__log__append__error__total={"conflict": 9.0, "full": 0.0})),
    ("RetentionBehind", "warning", log_is(retention_trouble="no user may purge"),
     log_is()),
    ("RetentionBehind", "warning", log_is(retention_behind_s=86_401.0),
     log_is(retention_behind_s=86_399.0)),
    ("LogNearlyFull", "warning", log_is(size_bytes=80, max_bytes=100),
     log_is(size_bytes=79, max_bytes=100)),
    ("ReplicaBehind", "warning", log_is(late_replicas=(LATE,)), WELL),
    ("ClocksDiffer", "warning", log_is(clock_ahead_s=5.1), log_is(clock_ahead_s=4.9)),
    ("ClocksDiffer", "warning", log_is(clock_ahead_s=-600.0), log_is(clock_ahead_s=-4.9)),
    ("LogClockStepped", "warning", log_is(clock_stepped_s=-0.6), WELL),
    ("LogSlow", "warning", appends(slow=5, total=100), appends(slow=4, total=100)),
    ("LogSlow", "warning", appends(slow=3, total=4), appends(slow=2, total=4)),
    ("DatabaseUnavailable", "critical", database_is(error="locked"), database_is(behind=3)),
    ("ProjectionLagging", "warning", database_is(lag_s=2.0), database_is(lag_s=1.9)),
    ("ProjectionLagging", "critical", database_is(lag_s=60.0), WELL),
    ("AuditDropped", "warning", machine(agent__audit__dropped__total={"queue_full": 1.0}),
     machine(agent__audit__dropped__total={"queue_full": 0.0})),
    ("ListenerFailed", "warning", machine(agent__projection__listener_error__total=1.0), WELL),
    ("LogFactsMissing", "critical", log_is(missing="it begins at 9", first=9), log_is(first=1)),
    ("InstanceIdShared", "warning", well("machine", second_holder_age_s=299.0),
     well("machine", second_holder_age_s=301.0)),
    ("BadEvents", "warning", machine(agent__projection__bad_event__total=1.0), WELL),
    ("BadEvents", "warning",
     well("machine", bad_events=(BadEvent(sequence=8, reason="no such event"),)), WELL),
    ("NotReady", "critical", well("machine", failing={"executor": "a loop of it has ended"}), WELL),
    # What another finding explains is reported once.
    ("DatabaseUnavailable", "critical",
     well("machine", failing={"database": "locked"},
          database=replace(WELL.machine.database, error="locked")), WELL),
    ("ProjectionMismatch", "critical", machine(agent__projection__mismatch__total=1.0), WELL),
]  # fmt: skip
