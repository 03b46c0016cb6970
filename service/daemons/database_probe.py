"""Asks SQLite whether it answers and takes writes, so that trouble shows before a fact needs it.

When many rows have gone, as those of forgotten plans, it gives their room back to the disk.
"""

from projections.integrity.write_probe import DatabaseProbe
from projections.read_models.sqlite_file import DatabaseUnavailable
from service.core.core import Core
from service.daemons.daemon import Daemon, on_core

PERIOD_S = 0.5


def database_probe(probe: DatabaseProbe) -> Daemon:
    """Probes twice a second."""

    async def step(core: Core) -> None:
        asked_at = core.now()
        try:
            await probe.ask()
            await core.database.give_room_back()
        except DatabaseUnavailable as error:
            core.conditions.database_answers("probe", str(error), asked_at)
            raise
        core.conditions.database_answers("probe", None)

    return Daemon(name="database_probe", period_s=PERIOD_S, step=on_core(step), probe=True)
