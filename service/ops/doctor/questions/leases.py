"""Are leases at risk? Expired ones with owner and last heartbeat, and the margin of renewals."""

from functools import partial
from typing import Any

from service.ops.doctor.evidence import Evidence, ExpiredLease, LeaseFigures
from service.ops.doctor.report import Examined, Finding, Severity, answered, cannot_tell
from streams.timestamps import rfc3339

EXPIRED_FOR_S = 5.0  # a reclaim usually follows within a moment
ABANDONED_S = 300.0  # after which it is unlikely that a worker takes it over
MOST_SHOWN = 10
LOW_SHARE = 0.1  # a tenth of the renewals: the 10th percentile is below the mark
LOW_PART = 0.2  # of each lease; a heartbeat every third of it leaves two thirds
LEFT = "agent.task.lease.remaining_at_renew.ratio"
FEWEST_RENEWALS = 10

_finding = partial(Finding, question="leases", severity="warning")


def examine(evidence: Evidence) -> Examined:
    """Answer the question."""
    seen = evidence.leases
    if seen is None:
        return cannot_tell("leases", evidence.why_not)
    numbers = _numbers(seen)
    findings = [_expired(seen, numbers, evidence.url), _low(seen, numbers, evidence.url)]
    return answered("leases", _says(seen, numbers), numbers, findings)


def _numbers(seen: LeaseFigures) -> dict[str, Any]:
    oldest = max((each.expired_for_s for each in seen.expired), default=0.0)
    numbers: dict[str, Any] = {
        "running": seen.running,
        "expired": seen.expired_count,
        "oldest_expired_s": round(oldest, 1),
    }
    if window := seen.window:
        numbers |= {
            "window_s": round(window.seconds, 1),
            "renewed": window.total("agent.task.heartbeat.success.total"),
            "renewal_errors": window.by("agent.task.heartbeat.error.total"),
            "low_part": LOW_PART,
            "renewed_below_low_part": window.observed(LEFT).up_to(LOW_PART),
        }
    if seen.heartbeat_lag_s is not None:
        numbers["heartbeat_loop_lag_s"] = round(seen.heartbeat_lag_s, 4)
    return numbers


def _says(seen: LeaseFigures, numbers: dict[str, Any]) -> str:
    says = f"{seen.running} running, {seen.expired_count} of them with an expired lease"
    if seen.window is None:
        return says
    return (
        f"{says}; in {seen.window.seconds:.0f} s {numbers['renewed']} renewals, "
        f"{numbers['renewed_below_low_part']} with less than {LOW_PART:.0%} of the lease left, "
        f"{sum(numbers['renewal_errors'].values())} failed"
    )


def _expired(seen: LeaseFigures, numbers: dict[str, Any], url: str) -> Finding | None:
    overdue = [each for each in seen.expired if each.expired_for_s >= EXPIRED_FOR_S]
    if not overdue:
        return None
    oldest = max(overdue, key=lambda each: each.expired_for_s)
    severity: Severity = "critical" if oldest.expired_for_s >= ABANDONED_S else "warning"
    return _finding(
        code="LeasesExpired",
        severity=severity,
        summary=f"{seen.expired_count} running tasks have lost their owner; the oldest, "
        f"{oldest.plan_id}/{oldest.task_id}, {oldest.expired_for_s:.0f} s ago",
        evidence={**numbers, "leases": [_shown(each) for each in overdue[:MOST_SHOWN]]},
        meaning=f"{oldest.owner} (attempt {oldest.attempt}) has stopped renewing: it is dead, "
        "frozen or cut off. Its task is claimable again, and the next worker that asks for "
        f"'{oldest.kind}' gets it; should the old owner wake up, its writes are refused.",
        command=f"curl -s '{url}/v1/plans/{oldest.plan_id}/tasks/{oldest.task_id}'",
        alert="LeasesExpired",
    )


def _low(seen: LeaseFigures, numbers: dict[str, Any], url: str) -> Finding | None:
    if seen.window is None:
        return None
    left = seen.window.observed(LEFT)
    low = numbers["renewed_below_low_part"]
    if left.count < FEWEST_RENEWALS or low < LOW_SHARE * left.count:
        return None
    return _finding(
        code="LeaseMarginLow",
        summary=f"{low} of {left.count} renewals came with less than "
        f"{LOW_PART:.0%} of the lease left",
        evidence={
            **numbers,
            "remaining_at_renew": {f"{k:g}": round(v) for k, v in left.buckets.items()},
        },
        meaning="Heartbeats come late: a worker's machine or loop is overloaded, the log is "
        "slow, or leases are too short for their heartbeat period. Leases will be lost next.",
        command=f"curl -s '{url}/actuator/metrics/{LEFT}'",
        alert="LeaseMarginLow",
    )


def _shown(lease: ExpiredLease) -> dict[str, Any]:
    return {
        "plan_id": lease.plan_id,
        "task_id": lease.task_id,
        "kind": lease.kind,
        "owner": lease.owner,
        "attempt": lease.attempt,
        "claim_sequence": lease.claim_sequence,
        "lease_s": lease.lease_s,
        "lease_until": rfc3339(lease.lease_until, "milliseconds"),
        "expired_for_s": round(lease.expired_for_s, 1),
        "last_heartbeat_at": rfc3339(lease.renewed_at, "milliseconds"),
        "last_sequence": lease.last_sequence,
        "lost": lease.lost,
        "max_lost_leases": lease.max_lost_leases,
    }
