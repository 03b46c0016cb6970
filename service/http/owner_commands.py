"""Makes the command on an attempt from the body of a worker's report."""

from msgspec import Raw, UnsetType

from service.http.schemas import CheckpointBody, CheckpointedItem, GivenBack
from streams.plan import commands
from streams.plan.commands import HeldAttempt
from streams.plan.error_types import closed
from streams.plan.results import NOTHING, Completion, Failing, TokenUsage, Verdict, carried
from streams.texts import shortened

LONGEST_TYPE = 64
LONGEST_MESSAGE = 10_000


def heartbeat(held: HeldAttempt, progress: Raw | UnsetType) -> commands.Heartbeat:
    """Renew a lease; progress that is null is no progress."""
    shown = progress if isinstance(progress, Raw) and progress != NOTHING else None
    return commands.Heartbeat(**held, progress=shown)


def checkpoint(held: HeldAttempt, said: CheckpointBody | CheckpointedItem) -> commands.Checkpoint:
    """Keep a value for later attempts."""
    usage = _usage(said.token_usage)
    return commands.Checkpoint(**held, key=said.key, value=said.value, token_usage=usage)


def complete(held: HeldAttempt, said: Completion) -> commands.Complete:
    """Report success."""
    return commands.Complete(
        **held,
        output=said.output,
        verdict=None if said.verdict is None else carried(Verdict, said.verdict),
        model_name=said.model_name,
        token_usage=_usage(said.token_usage),
    )


def fail(held: HeldAttempt, said: Failing, timeout_retry_max: int) -> commands.Fail:
    """Report failure. A long message or type is shortened: the report itself must arrive."""
    error_type, error_message = closed(
        shortened(said.error_type, LONGEST_TYPE) or "other", said.error_message
    )
    return carried(
        commands.Fail,
        said,
        **held,
        error_type=error_type,
        error_message=shortened(error_message, LONGEST_MESSAGE),
        timeout_retry_max=timeout_retry_max,
        token_usage=_usage(said.token_usage),
    )


def release(held: HeldAttempt, said: GivenBack) -> commands.Release:
    """Give a lease back unspent, with the tokens that its attempt used."""
    return commands.Release(
        **held,
        reason=said.reason,
        retry_in_s=said.retry_in_s,
        model_name=said.model_name,
        token_usage=_usage(said.token_usage),
    )


def _usage(said: TokenUsage | None) -> TokenUsage | None:
    return None if said is None else carried(TokenUsage, said)
