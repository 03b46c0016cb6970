"""The identities of SIGNALS.md: which of them a snapshot of the metrics breaks, and by how much.

They hold at rest (nothing claimed has still to end), for one instance, counted since its start.
"""

from tests.scrape import Snapshot


def broken(now: Snapshot, *, claimed_outside: int = 0, records: int | None = None) -> list[str]:
    """The identities that do not hold, one line each.

    ``claimed_outside`` are the claims that workers outside were granted, ``records`` the rows of
    executions, if they have been counted.
    """
    claimed = now.sum("agent_task_claim_success_total")
    ready = now.sum("agent_task_claim_ready_count_total")
    refining = now.sum("agent_task_claim_refining_count_total")
    dispatched = now.sum("agent_task_dispatch_success_total")
    rejected = now.sum("agent_task_dispatch_reject_total")
    ended = now.sum("agent_task_execution_total")
    failed = now.sum("agent_task_execution_total", result="failed")
    timeouts = now.sum("agent_task_execution_timeout_total")
    retried = now.sum("agent_task_execution_timeout_retry_total")
    final = now.sum("agent_task_execution_timeout_final_fail_total")
    equal = {
        "claim.success = ready.count + refining.count": (claimed, ready + refining),
        "claim.success = dispatch.success + dispatch.reject + claims outside": (
            claimed,
            dispatched + rejected + claimed_outside,
        ),
        "dispatch.success + claims outside = execution.total": (
            dispatched + claimed_outside,
            ended,
        ),
        "claim.success = observations of execution_attempt": (
            claimed,
            now.sum("agent_task_claim_execution_attempt_count"),
        ),
        "execution.total = observations of execution.duration": (
            ended,
            now.sum("agent_task_execution_duration_seconds_count"),
        ),
        "execution.failure = execution.total{failed}": (
            now.sum("agent_task_execution_failure_total"),
            failed,
        ),
        "timeout = timeout.retry + timeout.final_fail": (timeouts, retried + final),
        "nothing in flight": (now.sum("agent_task_worker_inflight_current"), 0),
        "nothing queued": (now.sum("agent_task_worker_queue_current"), 0),
    }
    if records is not None:
        equal["one execution record per attempt"] = (claimed, records)
    at_most = {
        "reclaimed <= ready.count": (now.sum("agent_task_claim_reclaimed_total"), ready),
        "ready.fallback <= ready.count": (
            now.sum("agent_task_claim_ready_fallback_count_total"),
            ready,
        ),
        "refining.fallback <= refining.count": (
            now.sum("agent_task_claim_refining_fallback_count_total"),
            refining,
        ),
        "claim.empty <= claim.poll": (
            now.sum("agent_task_claim_empty_total"),
            now.sum("agent_task_claim_poll_total"),
        ),
        "timeouts <= failures": (timeouts, failed),
    }
    return [
        *(
            f"{name}: {left:g} against {right:g}, off by {left - right:+g}"
            for name, (left, right) in equal.items()
            if left != right
        ),
        *(
            f"{name}: {left:g} against {right:g}, over by {left - right:g}"
            for name, (left, right) in at_most.items()
            if left > right
        ),
    ]
