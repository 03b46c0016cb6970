"""From the body of a worker's report to the command on its attempt, and back to an answer."""

from msgspec import Raw, UnsetType
from msgspec.structs import asdict

from service.http.schemas import Completion, Failure, GivenBack, TokenUsageBody, VerdictBody
from streams.plan import commands
from streams.plan.error_types import closed
from streams.plan.events import NOTHING, TokenUsage, Verdict

LONGEST_TYPE = 64
LONGEST_MESSAGE = 10_000


def heartbeat(
    plan_id: str, task_id: str, owner: str, attempt: int, progress: Raw | UnsetType
) -> commands.Heartbeat:
    """Renew a lease; progress that is null is no progress."""
    shown = progress if isinstance(progress, Raw) and progress != NOTHING else None
    return commands.Heartbeat(
        plan_id=plan_id, task_id=task_id, owner=owner, attempt=attempt, progress=shown
    )


def complete(
    plan_id: str, task_id: str, owner: str, attempt: int, said: Completion
) -> commands.Complete:
    """Report success."""
    return commands.Complete(
        plan_id=plan_id,
        task_id=task_id,
        owner=owner,
        attempt=attempt,
        output=said.output,
        verdict=_verdict(said.verdict),
        model_name=said.model_name,
        token_usage=_usage(said.token_usage),
    )


def fail(
    plan_id: str, task_id: str, owner: str, attempt: int, said: Failure, timeout_retry_max: int
) -> commands.Fail:
    """Report failure. A long message or type is shortened: the report itself must arrive."""
    error_type, error_message = closed(
        shortened(said.error_type, LONGEST_TYPE) or "other", said.error_message
    )
    return commands.Fail(
        plan_id=plan_id,
        task_id=task_id,
        owner=owner,
        attempt=attempt,
        error_type=error_type,
        error_message=shortened(error_message, LONGEST_MESSAGE),
        retryable=said.retryable,
        retry_in_s=said.retry_in_s,
        timeout_retry_max=timeout_retry_max,
        model_name=said.model_name,
        token_usage=_usage(said.token_usage),
    )


def release(
    plan_id: str, task_id: str, owner: str, attempt: int, said: GivenBack
) -> commands.Release:
    """Give a lease back unspent."""
    return commands.Release(
        plan_id=plan_id, task_id=task_id, owner=owner, attempt=attempt, reason=said.reason
    )


def shortened(text: str, longest: int) -> str:
    """At most ``longest`` characters; a text that was cut ends with "…"."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _verdict(said: VerdictBody | None) -> Verdict | None:
    return None if said is None else Verdict(pass_=said.pass_, feedback=said.feedback)


def _usage(said: TokenUsageBody | None) -> TokenUsage | None:
    return None if said is None else TokenUsage(**asdict(said))
