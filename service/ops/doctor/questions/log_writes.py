"""How the log takes new facts, and whether old ones leave it. A part of the internals."""

from functools import partial

from service.ops.doctor.evidence import LogHealth, Machine, Window
from service.ops.doctor.report import Finding

NEARLY_FULL = 0.8
SLOW_S = 0.25
SLOW_SHARE = 0.05
FEWEST_SLOW = 3
DAY_S = 24 * 3600
BEHIND_S = DAY_S

APPEND_ERROR = "agent.log.append.error.total"
APPEND_DURATION = "agent.log.append.duration"

_finding = partial(Finding, question="internals", severity="warning")


def findings(seen: Machine, url: str) -> list[Finding | None]:
    """What the window's appends and the log's bound say."""
    retention = _retention(seen.log)
    if seen.window is None:
        return [_nearly_full(seen.log), retention]
    full = _full(seen.window, seen.log)
    return [full or _nearly_full(seen.log), _slow(seen.window, url), retention]


def _retention(log: LogHealth) -> Finding | None:
    behind_s, trouble = log.retention_behind_s, log.retention_trouble
    if trouble is None and behind_s < BEHIND_S:
        return None
    days = behind_s / DAY_S
    return _finding(
        code="RetentionBehind",
        summary=f"plans are not forgotten: {trouble}"
        if trouble
        else f"a plan should have been forgotten {days:.1f} days ago",
        evidence={"trouble": trouble, "behind_s": round(behind_s)},
        meaning="Plans stay longer than retention.finished_days says, so log and read models grow. "
        "Nothing else is affected. After the setting was made smaller it needs some time.",
        command="holdfast check-config | grep -e retention -e nats",
    )


def _nearly_full(log: LogHealth) -> Finding | None:
    if log.max_bytes is None or log.size_bytes < NEARLY_FULL * log.max_bytes:
        return None
    return _finding(
        code="LogNearlyFull",
        summary=f"the log holds {log.size_bytes:,} of the {log.max_bytes:,} bytes that it may",
        evidence={"bytes": log.size_bytes, "max_bytes": log.max_bytes, "head": log.head},
        meaning="At its bound the log refuses every fact (507) and drops none. Make room on its "
        "disk, raise nats.plans_max_bytes or nats.plans_share and restart, or edit the stream.",
        command="nats stream info PLANS; df -h",
        alert="LogNearlyFull",
    )


def _full(window: Window, log: LogHealth) -> Finding | None:
    refused = window.by(APPEND_ERROR).get("full", 0)
    if not refused:
        return None
    return _finding(
        code="LogFull",
        severity="critical",
        summary=f"the log is full: it refused {refused} facts",
        evidence={"refused": refused, "bytes": log.size_bytes, "max_bytes": log.max_bytes},
        meaning="The stream or its disk has no room. Nothing is dropped and everything "
        "can be read, but nothing can be claimed or written (507) until there is room.",
        command=f"nats stream info {log.stream}; df -h",
        alert="LogFull",
    )


def _slow(window: Window, url: str) -> Finding | None:
    took = window.observed(APPEND_DURATION)
    slow = took.above(SLOW_S)
    if slow < max(FEWEST_SLOW, SLOW_SHARE * took.count):
        return None
    return _finding(
        code="LogSlow",
        summary=f"{slow} of {took.count} appends took longer than {SLOW_S:g} s",
        evidence={"appends": took.count, "slow": slow, "slower_than_s": SLOW_S},
        meaning="Every claim and every result waits that long. The log's disk, its replicas or "
        "the network to it are slow; leases with short heartbeats are at risk.",
        command=f"curl -s '{url}/actuator/metrics/{APPEND_DURATION}'; nats rtt",
    )
