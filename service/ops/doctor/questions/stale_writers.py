"""Are old executors writing back? Refused writes with both owners, attempts and claims."""

from typing import Any

import msgspec

from service.ops.doctor.evidence import Evidence, StaleWrite, Window, Writers
from service.ops.doctor.report import Examined, Finding, answered, cannot_tell
from service.ops.doctor.sources.refusals import MOST_ENTRIES
from streams.timestamps import rfc3339

MOST_SHOWN = 10
REFUSED_UPDATES = "agent.task.claimed_update.guard_reject.total"
REFUSED_HEARTBEATS = "agent.task.heartbeat.guard_reject.total"


def examine(evidence: Evidence) -> Examined:
    """Answer the question."""
    seen = evidence.writers
    if seen is None:
        return cannot_tell("stale_writers", evidence.why_not)
    stale = [each for each in seen.entries or () if each.is_stale]
    numbers = _numbers(seen, stale)
    says = _says(seen, numbers)
    known = seen.window is not None or seen.entries is not None
    findings = _stale(seen, stale, numbers, evidence.url)
    return answered("stale_writers", says, numbers, findings, known=known)


def _numbers(seen: Writers, stale: list[StaleWrite]) -> dict[str, Any]:
    numbers: dict[str, Any] = {"stale_writes": len(stale)}
    if window := seen.window:
        numbers |= {
            "window_s": round(window.seconds, 1),
            "refused_updates": window.by(REFUSED_UPDATES),
            "refused_heartbeats": window.total(REFUSED_HEARTBEATS),
            "accepted_updates": window.total("agent.task.claimed_update.success.total"),
        }
    if seen.entries is not None:
        numbers["refusals_in_audit"] = len(seen.entries)
    return numbers


def refused(window: Window | None) -> int:
    """How many writes of owners were refused in the window, as counted."""
    if window is None:
        return 0
    return window.total(REFUSED_UPDATES) + window.total(REFUSED_HEARTBEATS)


def _says(seen: Writers, numbers: dict[str, Any]) -> str:
    if seen.window is None:
        if seen.entries is None:
            return "cannot tell: neither the metrics nor the audit trail can be read"
        return f"{numbers['stale_writes']} stale writes in the newest of the audit trail"
    says = f"in {seen.window.seconds:.0f} s {refused(seen.window)} writes refused"
    if seen.entries is None:
        return f"{says}; by whom is not known: the audit trail is off or cannot be read"
    return f"{says}, {numbers['stale_writes']} of them from owners that had lost their lease"


def _stale(
    seen: Writers, stale: list[StaleWrite], numbers: dict[str, Any], url: str
) -> list[Finding]:
    unexplained = _unexplained(seen)
    if not stale and not unexplained:
        return []  # what else is refused has no second owner: its plan was cancelled, for example
    if not stale:
        said = f"{unexplained} writes were refused, and the audit trail does not say whose"
        return [_finding(said, numbers, _anywhere(url))]
    newest = stale[0]
    return [
        _finding(
            f"{_speaker(newest)} (attempt {newest.old_attempt}) wrote to {newest.plan_id}/"
            f"{newest.task_id} after {newest.new_owner or 'another'} (attempt "
            f"{newest.new_attempt}) had taken it over; {_refused(len(stale))}",
            {**numbers, "writes": [_shown(each) for each in stale[:MOST_SHOWN]]},
            f"curl -s '{url}/v1/audit?event={newest.event}&plan_id={newest.plan_id}"
            f"&task_id={newest.task_id}'",
        )
    ]


def _speaker(write: StaleWrite) -> str:
    """Whose lease it was, and which principal wrote where it has another name."""
    if write.principal in (None, write.old_owner):
        return write.old_owner
    return f"{write.old_owner} (written by the principal {write.principal})"


def _unexplained(seen: Writers) -> int:
    """Refusals that were counted and are not among the entries, unless those are cut off."""
    if seen.entries is None:
        return refused(seen.window)
    if len(seen.entries) >= MOST_ENTRIES:
        return 0
    return max(refused(seen.window) - len(seen.entries), 0)


def _anywhere(url: str) -> str:
    return f"curl -s '{url}/v1/audit?event=claimed_update_guard_reject'"


def _finding(summary: str, numbers: dict[str, Any], command: str) -> Finding:
    return Finding(
        code="StaleWriters",
        question="stale_writers",
        severity="warning",
        summary=summary,
        evidence=numbers,
        meaning="A worker lost its lease (frozen, cut off, or slower than its heartbeat) and did "
        "not notice. Nothing was changed by it: the write was refused, and the newer attempt "
        "counts. What it did outside, it may have done twice: outside systems should check the "
        "fencing token, which is the claim's sequence.",
        command=command,
        alert="StaleWriters",
    )


def _shown(write: StaleWrite) -> dict[str, Any]:
    shown = msgspec.structs.asdict(write)
    return {**shown, "at": rfc3339(write.at, "milliseconds")}


def _refused(writes: int) -> str:
    return "this write was refused" if writes == 1 else f"{writes} such writes were refused"
