"""Writes an owner's commands, again until each is in the log or the lease is gone."""

from time import monotonic

import msgspec
import structlog
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    retry_if_result,
    wait_random_exponential,
)

from service.core.bridge import Bridge, BridgeClosed
from service.core.results import OwnerAnswer, Refused
from streams.decider import Contention
from streams.log import LogFull, LogUnavailable, Origin
from streams.plan.commands import OwnerCommand

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 2.0

log = structlog.get_logger("holdfast.executor")


class Unwritten(msgspec.Struct, frozen=True):
    """The command is not in the log as far as is known, and will not be tried again."""

    reason: str


Answer = OwnerAnswer | Refused | Unwritten


class Reporter:
    """Writes commands of one owner; repeating one is safe, so each failure is tried again."""

    def __init__(self, bridge: Bridge, owner: str, instance_id: str) -> None:
        self._bridge = bridge
        self.owner = owner
        self._instance_id = instance_id

    def origin(self, traceparent: str = "") -> Origin:
        """The author that the fact names."""
        instance = self._instance_id
        return Origin(
            actor=self.owner, instance=instance, principal=instance, traceparent=traceparent
        )

    async def say(self, command: OwnerCommand, until: float, traceparent: str = "") -> Answer:
        """Write ``command``; tries until ``until`` (monotonic). Raises TooLarge."""
        origin = self.origin(traceparent)

        async def write() -> OwnerAnswer | Refused:
            return await self._bridge.call(lambda core: core.own(command, origin))

        try:
            answer = await write()
        except (LogUnavailable, LogFull) as error:
            log.warning("owner_write_delayed", **_named(command), error=str(error))
        except BridgeClosed as error:
            return Unwritten(str(error))
        else:
            if not isinstance(answer, Contention):
                return answer
        retrying = AsyncRetrying(
            retry=retry_if_exception_type((LogUnavailable, LogFull)) | retry_if_result(_contended),
            wait=wait_random_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S),
            stop=lambda state: _is_late(state, until),
            retry_error_callback=lambda state: _given_up(state, command),
        )
        try:
            return await retrying(write)
        except BridgeClosed as error:
            return Unwritten(str(error))


def _contended(answer: object) -> bool:
    return isinstance(answer, Contention)


def _is_late(state: RetryCallState, until: float) -> bool:
    return monotonic() + state.upcoming_sleep >= until


def _given_up(state: RetryCallState, command: OwnerCommand) -> Unwritten:
    outcome = state.outcome
    reason = str(outcome.exception() or outcome.result()) if outcome is not None else "no try"
    log.error("owner_write_abandoned", **_named(command), tries=state.attempt_number, error=reason)
    return Unwritten(reason)


def _named(command: OwnerCommand) -> dict[str, str | int]:
    return {
        "command": type(command).__name__.lower(),
        "plan_id": command.plan_id,
        "task_id": command.task_id,
        "attempt": command.attempt,
    }
