"""Every event of the audit trail, with its class; ``success`` is written on request only."""

from collections.abc import Mapping

from projections.read_models.audit import AuditClass

CLASSES: Mapping[str, AuditClass] = {
    "claim_acquired": "success",
    "dispatch_submitted": "success",
    "execution_started": "success",
    "execution_completed": "success",
    "claim_released": "success",
    "claim_reclaimed": "always",
    "lease_renew_guard_reject": "always",
    "lease_renew_error": "always",
    "claimed_update_guard_reject": "always",
    "claimed_update_error": "always",
    "dispatch_rejected": "always",
    "execution_failed": "always",
    "execution_timeout": "always",
    "execution_critic_rejected": "always",
    "lease_lost_cancelled": "always",
    "task_poisoned": "always",
    "operator_action": "always",
    "bad_event": "always",
    "log_unavailable": "always",
    "log_recovered": "always",
    "log_replaced": "always",
    "log_facts_missing": "always",
    "instance_id_shared": "always",
    "log_clock_stepped": "always",
    "database_error": "always",
    "database_recovered": "always",
    "token_refused": "always",
}
