// The answers of the API as the page uses them. The contract is the OpenAPI document.

export type TaskStatus =
  | "PENDING" | "READY" | "RUNNING" | "REFINING" | "COMPLETED" | "FAILED" | "SKIPPED" | "CANCELLED";
export type PlanStatus = "READY" | "RUNNING" | "PAUSED" | "COMPLETED" | "FAILED" | "CANCELLED";

export interface Task {
  plan_id: string;
  task_id: string;
  kind: string;
  type: string;
  status: TaskStatus;
  attempt: number;
  retry: number;
  lost: number;
  max_retries: number;
  max_lost_leases: number;
  owner: string | null;
  lease_until: string | null;
  lease_s: number;
  timeout_s: number;
  claimable_at: string | null;
  error_type: string | null;
  error_message: string | null;
  depends_on: string[];
  join: string;
  target: string | null;
  sequence: number;
  updated_at: string;
}

export interface Plan {
  plan_id: string;
  name: string;
  status: PlanStatus;
  priority: number;
  labels: Record<string, string>;
  created_at: string;
  finished_at: string | null;
  sequence: number;
  counts: Record<TaskStatus, number>;
}

export interface PlanDetail extends Plan {
  tasks: Task[];
}

export interface Execution {
  plan_id: string;
  task_id: string;
  attempt: number;
  owner: string;
  status: string;
  claimed_at: string;
  started_at: string | null;
  finished_at: string | null;
  duration_s: number | null;
  model_name: string | null;
  token_usage: { input_tokens: number; output_tokens: number; total_tokens: number } | null;
  error_type: string | null;
  error_message: string | null;
  sequence: number;
}

export interface LogEvent {
  sequence: number;
  at: string;
  plan_id: string;
  task_id: string | null;
  type: string;
  data: Record<string, unknown>;
  /** The event as it came, JSON. */
  line: string;
}

/** One of the writes in the evidence of the finding `StaleWriters`. */
export interface RefusedWrite {
  event: string;
  plan_id: string;
  task_id: string;
  old_owner: string;
  old_attempt: number;
  old_claim_sequence: number | null;
  new_owner: string | null;
  new_attempt: number | null;
  new_claim_sequence: number | null;
  audit_sequence: number;
}

export interface Finding {
  code: string;
  severity: string;
  summary: string;
  evidence: Record<string, unknown>;
  meaning: string;
  command: string;
  runbook: string | null;
}

export interface Reason {
  code: string;
  says: string;
  evidence: Record<string, unknown>;
  next: string;
}

export interface Why {
  answer: string;
  reasons: Reason[];
  sequence: number;
}

/** One item of an audit page, as the API gives it. */
export type AuditEntry = Record<string, any>;
