"""Appends the last fact of plans that have ended and that no instance has closed yet."""

from service.core.core import Core
from service.daemons.daemon import Daemon, on_core

PERIOD_S = 1.0
MAX_PER_TICK = 200


async def _step(core: Core) -> None:
    for plan_id in list(core.board.finishable)[:MAX_PER_TICK]:
        core.plan_closing.close(plan_id)


def plan_closer() -> Daemon:
    """Sweeps once a second."""
    return Daemon(name="plan_closer", period_s=PERIOD_S, step=on_core(_step))
