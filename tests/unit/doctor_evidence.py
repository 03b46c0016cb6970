"""Evidence of an instance that is well, for tests to make sick in one respect each."""

from typing import Any

from msgspec.structs import replace

from service.ops.doctor.diagnosis import diagnose
from service.ops.doctor.evidence import (
    Claiming,
    DaemonHealth,
    DatabaseHealth,
    Evidence,
    ExpiredLease,
    LeaseFigures,
    Load,
    LogHealth,
    Loop,
    Machine,
    Security,
    StaleWrite,
    Streams,
    Waiting,
    Window,
    Writers,
)
from service.ops.doctor.report import Finding

NOW = 1_800_000_000.0


def window(seconds: float = 60.0, **increase: float | dict[str, float]) -> Window:
    """Counters by dotted name, their dots as two underscores."""
    return Window(
        seconds,
        {
            name.replace("__", "."): value if isinstance(value, dict) else {"": value}
            for name, value in increase.items()
        },
    )


def waiting(
    kind: str = "render",
    tasks: int = 3,
    age_s: float = 45.0,
    asked_s: float | None = 1.0,
    running: int = 0,
) -> Waiting:
    return Waiting(
        kind=kind,
        tasks=tasks,
        oldest_age_s=age_s,
        plan_id="p",
        task_id="t",
        asked_s=asked_s,
        running=running,
    )


def expired(for_s: float) -> ExpiredLease:
    until = NOW - for_s
    return ExpiredLease(
        plan_id="p", task_id="t", kind="render", owner="w1", attempt=2, claim_sequence=7,
        lease_until=until, expired_for_s=for_s, lease_s=15.0, renewed_at=until - 15.0,
        last_sequence=9, lost=1, max_lost_leases=3,
    )  # fmt: skip


def stale(**changed: Any) -> StaleWrite:
    write = StaleWrite(
        at=NOW - 3, event="claimed_update_guard_reject", plan_id="p", task_id="t", old_owner="w1",
        old_attempt=1, old_claim_sequence=3, new_owner="w2", new_attempt=2, new_claim_sequence=5,
        status="RUNNING", audit_sequence=11,
    )  # fmt: skip
    return replace(write, **changed)


def daemon(**changed: Any) -> DaemonHealth:
    well = DaemonHealth(
        name="lease_monitor", period_s=1.0, lateness_s=0.001, last_success_age_s=0.4,
        overruns=0, trouble=None,
    )  # fmt: skip
    return replace(well, **changed)


WELL = Evidence(
    at=NOW,
    instance="here:1:abc",
    url="http://127.0.0.1:8000",
    window_s=300.0,
    machine=Machine(
        log=LogHealth(url="nats://127.0.0.1:4222", answers=True, detail="connected", head=9),
        database=DatabaseHealth(path="data/readmodels.sqlite", error=None, sequence=9, lag_s=0.0),
        daemons=(daemon(),),
        loops=(Loop(name="api", lag_s=0.001),),
        window=window(),
    ),
    claiming=Claiming(recent=window(), ready=0, refining=0, oldest_age_s=0.0, waiting=()),
    leases=LeaseFigures(running=1, expired=(), expired_count=0, window=window(300)),
    writers=Writers(window=window(300), entries=()),
    load=Load(window=window(300), backlog=0, backlog_before=0, ended=0, in_flight=0, queued=0,
              capacity=8),
    streams=Streams(connections=0, window=window(300)),
    security=Security(open_paths={}, connections=3, window=window(300)),
)  # fmt: skip


def well(part: str = "", **changed: Any) -> Evidence:
    """The evidence of an instance that is well but for what is ``changed`` in one ``part``."""
    if not part:
        return replace(WELL, **changed)
    return replace(WELL, **{part: replace(getattr(WELL, part), **changed)})


def found(evidence: Evidence) -> dict[str, Finding]:
    """The findings by their code; a code stands for one finding."""
    findings = diagnose(evidence).findings
    by_code = {finding.code: finding for finding in findings}
    assert len(by_code) == len(findings)
    return by_code
