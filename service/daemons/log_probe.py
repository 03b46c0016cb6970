"""Asks the log how it is, and what time it is there: log time and readiness stay true when idle."""

import asyncio

from service.core import Core
from service.daemons.schedulers import Daemon
from service.door import Door
from streams.log import LogUnavailable

PERIOD_S = 0.5
ANSWER_S = 1.0  # period and answer together: what goes wrong is known within two seconds


async def _step(core: Core) -> None:
    try:
        async with asyncio.timeout(ANSWER_S):
            core.log_state = await core.log.state()
    except TimeoutError:
        raise LogUnavailable(f"the log has not answered within {ANSWER_S:g} s") from None
    core.clock.observe(core.log_state.at)


async def _step_through(door: Door) -> None:
    await door.call(_step)


def log_probe() -> Daemon:
    """Probes twice a second."""
    return Daemon(name="log_probe", period_s=PERIOD_S, step=_step_through, probe=True)
