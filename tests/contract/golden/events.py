"""What each golden file holds: the event that its bytes mean, for ever."""

from streams.plan.events import (
    Cancelled,
    Checkpointed,
    Claimed,
    Completed,
    Event,
    Failed,
    Finished,
    Forgotten,
    Heartbeat,
    Paused,
    Progress,
    Raw,
    Released,
    Resumed,
    Retried,
    Started,
    Submitted,
    TaskSpec,
    TokenUsage,
    Verdict,
)

_USAGE = TokenUsage(input_tokens=10, output_tokens=5, total_tokens=15)
_WHOLE_USAGE = TokenUsage(
    input_tokens=10, output_tokens=5, total_tokens=15, cached_tokens=8, reasoning_tokens=2
)
_ESTIMATED = TokenUsage(input_tokens=10, output_tokens=5, total_tokens=15, estimated=True)

GOLDEN: dict[str, Event] = {
    "plan.submitted.v1.least": Submitted(tasks=(TaskSpec(id="t", kind="echo"),)),
    "plan.submitted.v1.full": Submitted(
        name="demo",
        context=Raw(b'{"a": 1}'),
        labels={"team": "x"},
        priority=3,
        tasks=(
            TaskSpec(
                id="fetch", kind="http", input=Raw(b'{"url":"u"}'), timeout_s=1.5, lease_s=2.5
            ),
            TaskSpec(
                id="join",
                kind="echo",
                depends_on=("fetch", "check"),
                join="quorum",
                quorum=1,
                on_failure="continue",
                priority=-2,
                max_retries=0,
                max_lost_leases=1,
            ),
            TaskSpec(id="check", kind="chat", type="critic", depends_on=("fetch",), target="fetch"),
        ),
    ),
    "plan.paused.v1.least": Paused(),
    "plan.paused.v1.full": Paused(reason="lunch"),
    "plan.resumed.v1.full": Resumed(reason="fed"),
    "plan.cancelled.v1.full": Cancelled(reason="no need"),
    "plan.retried.v1.full": Retried(task_id="t", reason="fixed"),
    "plan.retried.v1.also": Retried(task_id="t", also=("u", "v")),
    "plan.retried.v1.fresh": Retried(task_id="t", also=(), fresh=True),
    "plan.finished.v1.full": Finished(status="COMPLETED"),
    "plan.forgotten.v1.full": Forgotten(),
    "task.claimed.v1.least": Claimed(owner="w1", attempt=1, lease_s=15),
    "task.claimed.v1.full": Claimed(
        owner="w2", attempt=2, lease_s=7.5, lane="refining", previous_owner="w1"
    ),
    "task.claimed.v1.started": Claimed(
        owner="w2",
        attempt=2,
        lease_s=7.5,
        previous_owner="w1",
        silent=True,
        started=True,
        timeout_s=120,
    ),
    "task.started.v1.full": Started(owner="w1", attempt=1),
    "task.heartbeat.v1.full": Heartbeat(owner="w1", attempt=1, lease_s=15),
    "task.progress.v1.full": Progress(owner="w1", attempt=1, data=Raw(b'{"done": 0.5}')),
    "task.checkpointed.v1.least": Checkpointed(owner="w1", attempt=1, key="state", lease_s=15),
    "task.checkpointed.v1.full": Checkpointed(
        owner="w1",
        attempt=1,
        key="step/outline",
        value=Raw(b'{"text": ["a", 1]}'),
        lease_s=7.5,
        token_usage=_USAGE,
    ),
    "task.completed.v1.least": Completed(owner="w1", attempt=1),
    "task.completed.v1.full": Completed(
        owner="w1",
        attempt=1,
        output=Raw(b'["x", null]'),
        verdict=Verdict(pass_=False, feedback=Raw(b'"shorter"')),
        model_name="m",
        token_usage=_USAGE,
    ),
    "task.completed.v1.usage": Completed(
        owner="w1", attempt=1, model_name="m", token_usage=_WHOLE_USAGE
    ),
    "task.failed.v1.usage": Failed(
        owner="w1", attempt=1, error_type="connection_error", token_usage=_ESTIMATED
    ),
    "task.released.v1.usage": Released(
        owner="w1", attempt=1, reason="draining", model_name="m", token_usage=_ESTIMATED
    ),
    "task.failed.v1.least": Failed(owner="w1", attempt=1, error_type="timeout"),
    "task.failed.v1.full": Failed(
        owner="w1",
        attempt=1,
        error_type="http_500",
        error_message="broken",
        retry_in_s=2.5,
        model_name="m",
        token_usage=_USAGE,
    ),
    "task.released.v1.full": Released(owner="w1", attempt=1, reason="draining"),
    "task.released.v1.delayed": Released(owner="w1", attempt=1, retry_in_s=2.5),
}
