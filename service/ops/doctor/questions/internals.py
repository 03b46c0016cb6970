"""Do threads, loops and daemons work? The log, the database, the projector, the audit, too."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec

from service.ops.doctor.evidence import DaemonHealth, Evidence, Machine
from service.ops.doctor.questions import log_servers, log_writes
from service.ops.doctor.report import Examined, Finding, Severity, answered

LOOP_LAG_S = 0.1
LOOP_LAG_SHARE = 0.05
LOOP_STOOD_S = 1.0
FEWEST_SAMPLES = 20
BEHIND_S = 2.0
BEHIND_CRITICAL_S = 60.0
BEHIND_EVENTS = 10_000
SECOND_HOLDER_S = 300.0

EXPLAINS: Mapping[str, set[str]] = {
    "log": {"LogUnavailable"},
    "projector": {"ProjectionLagging", "DatabaseUnavailable"},
    "database": {"DatabaseUnavailable"},
    "daemons": {"DaemonLate"},
    "loops": {"LoopLagHigh", "DaemonLate"},
}
"""The findings that explain why a check of readiness fails."""

_finding = partial(Finding, question="internals", severity="warning")


def examine(evidence: Evidence) -> Examined:
    """Answer the question."""
    seen, url = evidence.machine, evidence.url
    numbers = _numbers(seen)
    findings = [
        _log(seen, url),
        _log_missing(seen),
        _second_holder(evidence),
        *log_servers.findings(seen.log),
        *log_writes.findings(seen, url),
        _database(seen),
        _daemons(seen, url),
        _loops(seen, url),
        _projection(seen, numbers, url),
        _audit(seen, url),
        _bad_events(seen, url),
        _listeners(seen),
        _mismatch(seen),
    ]
    told = {finding.code for finding in findings if finding is not None}
    findings.append(_not_ready(seen, told, url))
    return answered("internals", _says(seen), numbers, findings)


def _numbers(seen: Machine) -> dict[str, Any]:
    log, database = seen.log, seen.database
    return {
        "log": {
            "answers": log.answers,
            "first": log.first,
            "head": log.head,
            "bytes": log.size_bytes,
            "seen_age_s": None if log.seen_age_s is None else round(log.seen_age_s, 1),
            "late_replicas": [each.node for each in log.late_replicas],
            "clock_ahead_s": round(log.clock_ahead_s, 1),
        },
        "read_models": {
            "sequence": database.sequence,
            "behind": database.behind,
            "lag_s": None if database.lag_s is None else round(database.lag_s, 2),
        },
        "daemons": {each.name: _daemon(each) for each in seen.daemons},
        "loop_lag_s": _slowest(seen),
        "checks_failing": list(seen.failing),
    }


def _daemon(daemon: DaemonHealth) -> dict[str, Any]:
    age_s = daemon.last_success_age_s
    return {
        "trouble": daemon.trouble,
        "last_success_age_s": None if age_s is None else round(age_s, 1),
        "lateness_s": round(daemon.lateness_s, 4),
        "overruns": daemon.overruns,
    }


def _slowest(seen: Machine) -> dict[str, float]:
    """The lag of each kind of loop: that of the slowest thread of the kind."""
    slowest: dict[str, float] = {}
    for loop in seen.loops:
        slowest[loop.name] = max(slowest.get(loop.name, 0.0), round(loop.lag_s, 4))
    return slowest


def _says(seen: Machine) -> str:
    log, database = seen.log, seen.database
    parts = [
        f"log {log.first}..{log.head}" if log.answers else f"log: {log.detail}",
        f"read models at {database.sequence}" if database.error is None else "no read models",
    ]
    if seen.daemons:
        late = sum(daemon.trouble is not None for daemon in seen.daemons)
        parts.append(f"{len(seen.daemons)} daemons, {late} late")
    if slowest := _slowest(seen):
        parts.append(f"loop lag at most {1000 * max(slowest.values()):.1f} ms")
    return ", ".join(parts)


def _log(seen: Machine, url: str) -> Finding | None:
    log = seen.log
    if log.answers:
        return None
    command = f"curl -s '{url}/readyz'" if not seen.offline else f"nc -vz {_address(log.url)}"
    detail = log.detail
    if log.stopped_pid is not None:
        command = f"kill -CONT {log.stopped_pid}"
        detail = f"its process {log.stopped_pid} is stopped (SIGSTOP)"
    return _finding(
        code="LogUnavailable",
        severity="critical",
        summary=f"the log at {log.url or 'an unknown address'} does not answer: {detail}",
        evidence=msgspec.structs.asdict(log),
        meaning="Nothing can be claimed or written (503), nothing acknowledged is lost, and "
        "leases that expire meanwhile are reclaimed afterwards. Start or wake the "
        "nats-server, or mend the way to it.",
        command=command,
        alert="LogUnavailable",
    )


def _address(url: str) -> str:
    host, _, port = url.rpartition("/")[2].rpartition("@")[2].partition(":")
    return f"{host or '127.0.0.1'} {port or 4222}"


def _database(seen: Machine) -> Finding | None:
    database = seen.database
    if database.error is None:
        return None
    return _finding(
        code="DatabaseUnavailable",
        severity="critical",
        summary=f"SQLite cannot be used: {database.error}",
        evidence=msgspec.structs.asdict(database),
        meaning="Reads are old and new plans may be refused; claims and results go on, for "
        "they need only the log. Look for who locks the file, and for a full disk.",
        command=f"fuser -v '{database.path}'; df -h '{database.path}'",
        alert="ProjectionLagging",
    )


def _daemons(seen: Machine, url: str) -> Finding | None:
    late = [daemon for daemon in seen.daemons if daemon.trouble is not None]
    if not late:
        return None
    severity: Severity = "critical" if any(daemon.stuck for daemon in late) else "warning"
    told = "; ".join(f"{each.name}: {each.trouble}" for each in late)
    return _finding(
        code="DaemonLate",
        severity=severity,
        summary=f"daemons that do not do their work: {told}",
        evidence={each.name: msgspec.structs.asdict(each) for each in late},
        meaning="A stuck daemon hangs in one tick, a failing one says why; the others go on "
        "beside it. What it looks after (leases, closing plans, samples) is not looked "
        "after here; another instance does it for the whole log.",
        command=f"curl -s '{url}/v1/ops/status'",
        alert="DaemonLate",
    )


def _loops(seen: Machine, url: str) -> Finding | None:
    lagging: dict[str, Any] = {}
    for name, lag_s in _slowest(seen).items():
        sampled = seen.window.observed("agent.loop.lag", name) if seen.window else None
        count = sampled.count if sampled else 0
        late = sampled.above(LOOP_LAG_S) if sampled else 0
        often = count >= FEWEST_SAMPLES and late >= LOOP_LAG_SHARE * count
        if often or lag_s >= LOOP_STOOD_S:
            lagging[name] = {"lag_s": lag_s, "samples": count, "late_samples": late}
    if not lagging:
        return None
    return _finding(
        code="LoopLagHigh",
        summary=f"event loops run late: {', '.join(sorted(lagging))}",
        evidence=lagging,
        meaning="Something holds the loop or the machine has too little CPU: answers, "
        "heartbeats or ticks of this loop come late. Handlers belong in the worker pool.",
        command=f"curl -s '{url}/actuator/metrics/agent.loop.lag'",
        alert="LoopLagHigh",
    )


def _projection(seen: Machine, numbers: dict[str, Any], url: str) -> Finding | None:
    database = seen.database
    lag_s = database.lag_s or 0.0
    if database.error is not None or (lag_s < BEHIND_S and database.behind < BEHIND_EVENTS):
        return None
    severity: Severity = "critical" if lag_s >= BEHIND_CRITICAL_S else "warning"
    return _finding(
        code="ProjectionLagging",
        severity=severity,
        summary=f"the read models are {database.behind} facts and {lag_s:.0f} s behind",
        evidence=numbers["read_models"],
        meaning="GET answers show an older state; claims and writes do not "
        "wait for it. The disk is slow, or the log grows faster than SQLite is written.",
        command=f"curl -s '{url}/v1/ops/status'" if url else f"ls -l '{database.path}'*",
        alert="ProjectionLagging",
    )


def _audit(seen: Machine, url: str) -> Finding | None:
    dropped = seen.window.by("agent.audit.dropped.total") if seen.window else {}
    if not dropped.keys() - {"shutting_down"}:
        return None
    return _finding(
        code="AuditDropped",
        summary=f"{sum(dropped.values())} audit entries could not be written",
        evidence={"dropped": dropped},
        meaning=f"The stream {seen.log.audit_stream} did not take them in time; each stands in the "
        "log lines of the logger holdfast.audit.",
        command=f"curl -s '{url}/actuator/metrics/agent.audit.dropped.total'",
        alert="AuditDropped",
    )


def _bad_events(seen: Machine, url: str) -> Finding | None:
    counted = seen.window.total("agent.projection.bad_event.total") if seen.window else 0
    if not counted and not seen.bad_events:
        return None
    last = [msgspec.structs.asdict(each) for each in seen.bad_events]
    where = f"sequence {last[-1]['sequence']}: {last[-1]['reason']}" if last else "see the audit"
    return _finding(
        code="BadEvents",
        summary=f"{counted or len(last)} facts could not be read or applied; {where}",
        evidence={"in_window": counted, "last": last},
        meaning="A fact was written into the log by hand, or by a newer Holdfast. The fold "
        "skipped it; no write may follow one that cannot be read.",
        command=f"curl -s '{url}/v1/audit?event=bad_event'",
        alert="BadEvents",
    )


def _listeners(seen: Machine) -> Finding | None:
    failed = seen.window.total("agent.projection.listener_error.total") if seen.window else 0
    if not failed:
        return None
    return _finding(
        code="ListenerFailed",
        summary=f"what listens to the fold has failed {failed} times",
        evidence={"failures": failed},
        meaning="Plans and tasks are right, but a metric, an audit entry or an event on a "
        "stream may be missing. The log line 'listener_failed' names the listener, the "
        "sequence of the fact and the error: report it as a bug.",
        command="grep listener_failed on the instance's standard output",
    )


def _second_holder(evidence: Evidence) -> Finding | None:
    age_s = evidence.machine.second_holder_age_s
    if age_s is None or age_s > SECOND_HOLDER_S:
        return None
    return _finding(
        code="InstanceIdShared",
        summary=f"another process wrote as instance '{evidence.instance}' {age_s:.0f} s ago",
        evidence={"instance": evidence.instance, "age_s": round(age_s, 1)},
        meaning="Two running processes have the same executor.instance_id. Leases and "
        "counters stay right, but owners, audit entries and the sharing of the queue cannot "
        "tell them apart. Give each process its own id, or leave the setting out.",
        command=f"curl -s '{evidence.url}/v1/audit?event=instance_id_shared'",
    )


def _log_missing(seen: Machine) -> Finding | None:
    if seen.log.missing is None:
        return None
    return _finding(
        code="LogFactsMissing",
        severity="critical",
        summary=seen.log.missing,
        evidence={"first": seen.log.first, "head": seen.log.head},
        meaning=f"The stream {seen.log.stream} was purged, a message was deleted, or a limit was "
        "set on it. What the missing facts said is only in the read models of instances: do not "
        "delete or rebuild them. Restore the stream from a backup.",
        command=f"nats stream info {seen.log.stream}",
        alert="ProjectionMismatch",
    )


def _mismatch(seen: Machine) -> Finding | None:
    found = seen.window.total("agent.projection.mismatch.total") if seen.window else 0
    if not found or seen.log.missing:  # the other finding says more, and not to rebuild
        return None
    return _finding(
        code="ProjectionMismatch",
        severity="critical",
        summary=f"the self-check found {found} differences between the log and what is shown",
        evidence={"differences": found},
        meaning="A view is not what the log says. The log is right: compare it all, then "
        "rebuild the read models.",
        command="holdfast rebuild --verify",
        alert="ProjectionMismatch",
    )


def _not_ready(seen: Machine, told: set[str], url: str) -> Finding | None:
    """Checks of readiness that fail and that no finding explains."""
    failing = {
        name: why for name, why in seen.failing.items() if not EXPLAINS.get(name, set()) & told
    }
    if not failing:
        return None
    return _finding(
        code="NotReady",
        severity="critical",
        summary="; ".join(f"{name}: {why}" for name, why in failing.items()),
        evidence=failing,
        meaning="The instance reports that it cannot do its work, so nothing should be sent to "
        "it. What it held is taken over when its leases expire. If it does not heal by itself, "
        "restart it.",
        command=f"curl -s '{url}/readyz'",
    )
