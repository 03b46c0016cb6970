"""Asks SQLite whether it answers and takes writes, so that trouble shows before a fact needs it."""

from projections.probe import DatabaseProbe
from service.core import Core
from service.daemons.schedulers import Daemon
from service.door import Door

PERIOD_S = 0.5


def database_probe(probe: DatabaseProbe) -> Daemon:
    """Probes twice a second."""

    async def step(_: Core) -> None:
        await probe.ask()

    async def step_through(door: Door) -> None:
        await door.call(step)

    return Daemon(name="database_probe", period_s=PERIOD_S, step=step_through, probe=True)
