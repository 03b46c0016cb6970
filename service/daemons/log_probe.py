"""Asks the log how it is, and what time it is there: log time and readiness stay true when idle."""

import asyncio

from service.core.bridge import Door
from service.core.core import Core
from service.daemons.schedulers import Daemon
from streams.log import LogState, LogUnavailable

PERIOD_S = 0.5
ANSWER_S = 1.0  # period and answer together: what goes wrong is known within two seconds


async def _step(core: Core) -> None:
    asked_at = core.now()
    try:
        core.log_state = await _answer(core)
    except LogUnavailable as error:
        core.log_answers("probe", str(error), asked_at)
        raise
    core.clock.observe(core.log_state.at)
    core.log_answers("probe", None)


async def _answer(core: Core) -> LogState:
    try:
        async with asyncio.timeout(ANSWER_S):
            return await core.log.state()
    except TimeoutError:
        raise LogUnavailable(f"the log has not answered within {ANSWER_S:g} s") from None


async def _step_through(door: Door) -> None:
    await door.call(_step)


def log_probe() -> Daemon:
    """Probes twice a second."""
    return Daemon(name="log_probe", period_s=PERIOD_S, step=_step_through, probe=True)
