"""Asks the log how it is, and what time it is there: log time and readiness stay true when idle."""

from service.core import Core
from service.daemons.schedulers import Daemon
from service.door import Door

PERIOD_S = 1.0


async def _step(core: Core) -> None:
    core.log_state = await core.log.state()
    core.clock.observe(core.log_state.at)


async def _step_through(door: Door) -> None:
    await door.call(_step)


def log_probe() -> Daemon:
    """Probes once a second."""
    return Daemon(name="log_probe", period_s=PERIOD_S, step=_step_through)
