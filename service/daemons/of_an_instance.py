"""Which daemons an instance runs."""

from contextlib import AsyncExitStack

from projections.integrity.plan_rows import PlanFile
from projections.integrity.write_probe import DatabaseProbe
from service.core.core import Core
from service.daemons.backlog_sampler import backlog_sampler
from service.daemons.daemon import Daemon
from service.daemons.database_probe import database_probe
from service.daemons.lease_monitor import lease_monitor
from service.daemons.log_probe import log_probe
from service.daemons.plan_closer import plan_closer
from service.daemons.self_check import self_check
from service.runtime.data_folder import READ_MODELS
from service.runtime.nats_server.embedded import EmbeddedServer
from service.signals.metrics.appends import LogObserver


async def daemons_of(
    core: Core,
    embedded: EmbeddedServer | None,
    writes: LogObserver,
    stack: AsyncExitStack,
    *,
    for_the_log: bool,
) -> list[Daemon]:
    """Those that look after the instance, and ``for_the_log`` those of the log beside them."""
    path = core.settings.data_dir / READ_MODELS
    probe = await DatabaseProbe.open(path, core.database)
    stack.push_async_callback(probe.close)
    own = [
        backlog_sampler(),
        log_probe(writes, embedded.took_no_write if embedded else lambda _: None),
        database_probe(probe),
        self_check(PlanFile(path)),
    ]
    return [lease_monitor(), plan_closer(), *own] if for_the_log else own
