"""Writes an owner's commands, again until each is in the log or the lease is gone.

What many attempts say in one turn of the core's loop is written together.
"""

import asyncio
from collections.abc import Sequence
from contextvars import Context
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

from service.core.answers import AcceptedWrite, Refused
from service.core.bridge import Bridge, BridgeClosed
from service.core.core import Core
from streams.decider import Contention
from streams.log import LogFull, LogUnavailable, Origin
from streams.plan.commands import OwnerCommand

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 2.0

log = structlog.get_logger("holdfast.executor")


class Unwritten(msgspec.Struct, frozen=True):
    """The command is not in the log as far as is known, and will not be tried again."""

    reason: str


WrittenReport = AcceptedWrite | Refused
ReportOutcome = WrittenReport | Unwritten


class Reporter:
    """Writes commands of one owner; repeating one is safe, so each failure is tried again."""

    def __init__(self, bridge: Bridge, owner: str, instance_id: str) -> None:
        self._bridge = bridge
        self.owner = owner
        self._instance_id = instance_id
        # Of the core's loop: what is to be written with the next turn, and what is being written.
        self._gathered: list[tuple[OwnerCommand, asyncio.Future[WrittenReport]]] = []
        self._writing: set[asyncio.Task[None]] = set()

    def origin(self) -> Origin:
        """The author that the facts name; each joins the trace of its attempt."""
        instance = self._instance_id
        return Origin(actor=self.owner, instance=instance, principal=instance)

    async def say(self, command: OwnerCommand, until: float) -> ReportOutcome:
        """Write ``command``; tries until ``until`` (monotonic). Raises TooLarge."""

        async def write() -> WrittenReport:
            return await self._bridge.call(lambda core: self._with_others(core, command))

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

    # -- on the core's loop -----------------------------------------------------------------

    def _with_others(self, core: Core, command: OwnerCommand) -> "asyncio.Future[WrittenReport]":
        loop = asyncio.get_running_loop()
        written: asyncio.Future[WrittenReport] = loop.create_future()
        self._gathered.append((command, written))
        if len(self._gathered) == 1:
            loop.call_soon(self._write_gathered, core, context=Context())
        return written

    def _write_gathered(self, core: Core) -> None:
        gathered, self._gathered = self._gathered, []
        writing = asyncio.get_running_loop().create_task(self._write(core, gathered))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)

    async def _write(
        self, core: Core, gathered: "list[tuple[OwnerCommand, asyncio.Future[WrittenReport]]]"
    ) -> None:
        """Write them together; where the log has trouble with one, all are to be tried again."""
        answers: Sequence[WrittenReport | Exception]
        try:
            answers = await core.own_many([command for command, _ in gathered], self.origin())
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            answers = [error] * len(gathered)
        for (_, written), answer in zip(gathered, answers, strict=True):
            if written.done():
                continue  # its attempt waits no more
            if isinstance(answer, Exception):
                written.set_exception(answer)
            else:
                written.set_result(answer)


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
