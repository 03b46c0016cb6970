"""What a handler in this process keeps for a later attempt, written to the log as it asks."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from time import monotonic

from msgspec import Raw, convert

from holdfast_worker.failures import TaskCancelled, TaskFailed
from holdfast_worker.tokens import Usage
from service.core.answers import AcceptedWrite
from service.executor.attempts.leases import Lease
from service.executor.attempts.reports import ReportOutcome
from streams.json_values import check
from streams.log import TooLarge
from streams.plan import commands
from streams.plan.decisions import Invalid, OverLimit
from streams.plan.results import TokenUsage

WriteCommand = Callable[[commands.OwnerCommand, float], Awaitable[ReportOutcome]]
ADVICE = "keep large values elsewhere, and their place in the checkpoint"


class Checkpoints:
    """Writes one attempt's checkpoints on ``loop``; its handler may call from any thread."""

    def __init__(self, lease: Lease, say: WriteCommand, loop: asyncio.AbstractEventLoop) -> None:
        self._lease = lease
        self._say = say
        self._loop = loop

    def keep(self, key: str, value: Raw, usage: Usage | None) -> Future[bool]:
        """True once the value is in the log. Raises what the handler is to see."""
        check(value)
        return asyncio.run_coroutine_threadsafe(self._written(key, value, usage), self._loop)

    async def _written(self, key: str, value: Raw, usage: Usage | None) -> bool:
        command = commands.Checkpoint(
            **self._lease.held,
            key=key,
            value=value,
            token_usage=None if usage is None else convert(usage, TokenUsage),
        )
        asked_at = monotonic()
        try:
            answer = await self._say(command, self._lease.fence_at)
        except TooLarge as error:
            answer = OverLimit(str(error))
        match answer:
            case AcceptedWrite():
                self._lease.renewed(asked_at)
                return True
            case OverLimit(detail):
                message = f"the checkpoint {key!r}: {detail}; {ADVICE}"
                raise TaskFailed("too_large", message, retryable=False)
            case Invalid(detail):
                raise TaskFailed("bad_output", f"the checkpoint {key!r}: {detail}", retryable=False)
            case _:
                self._lease.stop("fenced")
                raise TaskCancelled(f"the checkpoint {key!r} was refused: {answer}")
