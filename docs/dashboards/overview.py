"""The dashboard that follows an operator's questions, in order."""

from docs.dashboards.drawing import JOB, Dashboard, Panel, Query, Row
from docs.dashboards.expressions import AT, mean, now, quantile, rate

_CLAIMING = Row(
    "Is claiming congested, or spinning idle?",
    (
        Panel(
            title="Claimable tasks",
            says="What waits to be claimed, as every instance sees it. BacklogGrowing.",
            queries=(Query(f"max by (lane) ({now('agent_task_backlog_current')})", "{{lane}}"),),
        ),
        Panel(
            title="Age of the oldest claimable task",
            says="ClaimStarved looks at this: 60 s without any claim, or 600 s.",
            queries=(
                Query(
                    f"max by (lane) ({now('agent_task_backlog_oldest_age_seconds')})", "{{lane}}"
                ),
            ),
            unit="s",
            alarm=60,
        ),
        Panel(
            title="Tasks claimed, polls, empty polls",
            says="Many empty polls: a worker polls in a loop (ClaimSpinning).",
            queries=(
                Query(rate("agent_task_claim_success_total", "job"), "claimed"),
                Query(rate("agent_task_claim_poll_total", "job"), "polls"),
                Query(rate("agent_task_claim_empty_total", "job"), "empty"),
            ),
            unit="ops",
        ),
        Panel(
            title="Claims by lane",
            says="A fallback is a slot that the other lane left unused.",
            queries=(
                Query(rate("agent_task_claim_ready_count_total", "job"), "ready"),
                Query(rate("agent_task_claim_refining_count_total", "job"), "refining"),
                Query(
                    rate("agent_task_claim_ready_fallback_count_total", "job"), "ready, fallback"
                ),
                Query(
                    rate("agent_task_claim_refining_fallback_count_total", "job"),
                    "refining, fallback",
                ),
            ),
            unit="ops",
        ),
        Panel(
            title="Claims that lost their race",
            says="Instances fight over the same tasks; under a tenth of the claims is healthy.",
            queries=(Query(rate("agent_task_claim_conflict_total"), AT),),
            unit="ops",
        ),
        Panel(
            title="Attempt number of claims",
            says="Rising: tasks fail or lose their leases and are tried again.",
            queries=(
                Query(mean("agent_task_claim_execution_attempt", "job"), "mean"),
                Query(quantile("0.99", "agent_task_claim_execution_attempt", "job"), "p99"),
            ),
        ),
    ),
)

_LEASES = Row(
    "Are leases at risk?",
    (
        Panel(
            title="RUNNING tasks with an expired lease",
            says="Their workers are dead or frozen, and no other took over: LeasesExpired.",
            queries=(Query(f"max({now('agent_task_expired_running_current')})", "tasks"),),
        ),
        Panel(
            title="Oldest expired lease",
            says="For how long it has been expired.",
            queries=(Query(f"max({now('agent_task_expired_running_oldest_seconds')})", "oldest"),),
            unit="s",
        ),
        Panel(
            title="Left of the lease at renewal",
            says="The early warning, as a part of each lease: the worst twentieth should stay "
            "above a fifth. LeaseMarginLow.",
            queries=(
                Query(quantile("0.05", "agent_task_lease_remaining_at_renew_ratio"), f"{AT} p5"),
                Query(quantile("0.5", "agent_task_lease_remaining_at_renew_ratio"), f"{AT} median"),
            ),
            unit="percentunit",
        ),
        Panel(
            title="Seconds left at renewal",
            says="The mean, over leases of all lengths.",
            queries=(Query(mean("agent_task_lease_remaining_at_renew_seconds"), AT),),
            unit="s",
        ),
        Panel(
            title="Renewals and reclaims",
            says="A reclaim takes over a lease that expired on its owner.",
            queries=(
                Query(rate("agent_task_heartbeat_success_total", "job"), "renewed"),
                Query(rate("agent_task_heartbeat_error_total", "kind"), "failed: {{kind}}"),
                Query(rate("agent_task_claim_reclaimed_total", "job"), "reclaimed"),
            ),
            unit="ops",
        ),
        Panel(
            title="Checks for expired leases",
            says="A check that fails, or is long ago, makes the two gauges above worthless.",
            queries=(
                Query(rate("agent_task_expired_running_detected_total"), f"{AT} found some"),
                Query(rate("agent_task_expired_running_check_error_total"), f"{AT} failed"),
            ),
            unit="ops",
            width=12,
        ),
        Panel(
            title="Last check for expired leases",
            says="Seconds ago.",
            queries=(
                Query(
                    f"time() - {now('agent_task_expired_running_last_check_timestamp_seconds')}",
                    AT,
                ),
            ),
            unit="s",
            width=12,
        ),
    ),
)

_STALE = Row(
    "Are old executors writing back?",
    (
        Panel(
            title="Refused writes",
            says="Heartbeats and results of owners that lost their lease. StaleWriters.",
            queries=(
                Query(rate("agent_task_heartbeat_guard_reject_total", "job"), "heartbeat"),
                Query(rate("agent_task_claimed_update_guard_reject_total", "op"), "{{op}}"),
            ),
            unit="ops",
        ),
        Panel(
            title="Refused in ten minutes and not explained by a cancellation",
            says="What StaleWriters fires on.",
            queries=(Query(f"holdfast:writes_refused_unexplained:10m{{{JOB}}}", "{{job}}"),),
            alarm=0.5,
        ),
        Panel(
            title="Owners' writes accepted and failed",
            says="A failed one was answered 503 or 507 and may be repeated.",
            queries=(
                Query(rate("agent_task_claimed_update_success_total", "op"), "{{op}}"),
                Query(rate("agent_task_claimed_update_error_total", "op"), "{{op}} failed"),
            ),
            unit="ops",
        ),
    ),
)

_CAPACITY = Row(
    "Shed load or scale out?",
    (
        Panel(
            title="The executors' pools",
            says="Full while the backlog's oldest task ages: DispatchRejecting. Handlers that hold "
            "a thread although their attempt is over: HandlersOverrun.",
            queries=(
                Query(now("agent_task_worker_inflight_current"), f"{AT} running"),
                Query(now("agent_task_worker_queue_current"), f"{AT} queued"),
                Query(now("agent_task_worker_capacity"), f"{AT} room"),
                Query(now("agent_task_worker_overrun_current"), f"{AT} overrunning"),
            ),
        ),
        Panel(
            title="Dispatched and rejected",
            says="No claim exceeds the free slots, so a reject other than `draining` is a fault.",
            queries=(
                Query(rate("agent_task_dispatch_success_total", "job"), "dispatched"),
                Query(rate("agent_task_dispatch_reject_total", "reason"), "rejected: {{reason}}"),
            ),
            unit="ops",
        ),
        Panel(
            title="Memory of worker host processes",
            says="In bytes; 0 where handlers run in threads of the service.",
            queries=(Query(now("agent_task_worker_host_memory"), AT),),
        ),
        Panel(
            title="Worker host processes replaced",
            says="Per second, for one that ended or ignored a stop; the log says why "
            "(`host_ended`, `host_ignores_stop`).",
            queries=(Query(rate("agent_task_worker_host_replaced_total"), AT),),
            unit="ops",
        ),
        Panel(
            title="From claim to start",
            says="From the claim's log time to the handler's first instruction.",
            queries=(
                Query(quantile("0.5", "agent_task_claim_to_start_latency_seconds"), f"{AT} median"),
                Query(quantile("0.99", "agent_task_claim_to_start_latency_seconds"), f"{AT} p99"),
            ),
            unit="s",
        ),
        Panel(
            title="Attempts ended",
            says="By how they ended; `lost` is a lease that another attempt took over.",
            queries=(Query(rate("agent_task_execution_total", "result"), "{{result}}"),),
            unit="ops",
        ),
        Panel(
            title="Duration of attempts",
            says="Workers' and critics', whatever their end; 95th percentile.",
            queries=(
                Query(
                    quantile("0.95", "agent_task_execution_duration_seconds", "task_type"),
                    "{{task_type}}",
                ),
            ),
            unit="s",
        ),
        Panel(
            title="Failures by type",
            says="A closed set; what no handler has a name for is `other`.",
            queries=(
                Query(rate("agent_task_execution_failure_total", "error_type"), "{{error_type}}"),
            ),
            unit="ops",
        ),
        Panel(
            title="Time-outs",
            says="Those that are retried and those that are final.",
            queries=(
                Query(rate("agent_task_execution_timeout_total", "task_type"), "{{task_type}}"),
                Query(rate("agent_task_execution_timeout_retry_total", "job"), "retried"),
                Query(rate("agent_task_execution_timeout_final_fail_total", "job"), "final"),
            ),
            unit="ops",
        ),
        Panel(
            title="Plans ended",
            says="By their last status.",
            queries=(Query(rate("agent_plan_finished_total", "status"), "{{status}}"),),
            unit="ops",
        ),
        Panel(
            title="Tokens",
            says="Tokens of language models, as reported with results.",
            queries=(
                Query(rate("agent_task_execution_tokens_total", "direction"), "{{direction}}"),
            ),
            unit="ops",
        ),
    ),
)

_WHOLE = Row(
    "Is SSE whole?",
    (
        Panel(
            title="Open streams",
            says="Per instance.",
            queries=(Query(now("agent_sse_connections_current"), AT),),
        ),
        Panel(
            title="Pushes that failed",
            says="`disconnected` is everyday life, the others are SsePushFailing.",
            queries=(Query(rate("agent_sse_push_fail_total", "reason"), "{{reason}}"),),
            unit="ops",
        ),
        Panel(
            title="Clients that connected",
            says="`gap`: the cursor could not be honoured. SseResumeGaps.",
            queries=(Query(rate("agent_sse_resume_total", "outcome"), "{{outcome}}"),),
            unit="ops",
        ),
    ),
)

_ALIVE = Row(
    "Do threads, loops and daemons work?",
    (
        Panel(
            title="Instances that answer",
            says="MetricsMissing fires when one does not.",
            queries=(Query(f"sum(up{{{JOB}}})", "up"),),
            stat=True,
            width=4,
        ),
        Panel(
            title="Lag of loops",
            says="99th percentile. LoopLagHigh.",
            queries=(Query(quantile("0.99", "agent_loop_lag_seconds", "loop"), "{{loop}}"),),
            unit="s",
            width=10,
            alarm=0.25,
        ),
        Panel(
            title="Reads behind the log",
            says="How long the oldest fact not yet in SQLite has waited. ProjectionLagging.",
            queries=(Query(now("agent_projection_lag_seconds"), AT),),
            unit="s",
            width=10,
            alarm=10,
        ),
    ),
)

OVERVIEW = Dashboard(
    uid="holdfast-overview",
    title="Holdfast: overview",
    says="The questions an operator asks, in order.",
    rows=(_CLAIMING, _LEASES, _STALE, _CAPACITY, _WHOLE, _ALIVE),
)
