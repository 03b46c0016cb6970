"""Which daemons an instance runs."""

from collections.abc import Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from projections.integrity.plan_rows import PlanFile
from projections.integrity.write_probe import DatabaseProbe
from service.core.core import Core
from service.daemons.backlog_sampler import backlog_sampler
from service.daemons.daemon import Daemon
from service.daemons.database_probe import database_probe
from service.daemons.lease_monitor import lease_monitor
from service.daemons.log_probe import log_probe
from service.daemons.plan_closer import plan_closer
from service.daemons.retention import DAY_S, Connect, Retention
from service.daemons.self_check import self_check
from service.daemons.snapshots import Snapshots
from service.runtime.data_folder import READ_MODELS
from service.runtime.nats_server.credentials import user_url
from service.runtime.nats_server.embedded import STORE_FOLDER, EmbeddedServer
from service.signals.metrics.appends import LogObserver
from service.snapshots.store import store_of
from streams.jetstream.forgetting import Purger
from streams.jetstream.log import JetStreamLog
from streams.jetstream.permissions import RETENTION

PURGER_TIMEOUT_S = 30.0


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


def loops_of(
    core: Core, source: JetStreamLog, embedded: EmbeddedServer | None
) -> dict[str, Coroutine[Any, Any, None]]:
    """What looks after the log on the API loop, by name."""
    loops: dict[str, Coroutine[Any, Any, None]] = {}
    if core.settings.retention.finished_days:
        loops["retention"] = _retention(core, source, embedded).run()
    if (open_store := store_of(core.settings)) is not None:
        every_facts = core.settings.snapshots.every_facts
        loops["snapshots"] = Snapshots(core, open_store, every_facts=every_facts).run()
    return loops


def _retention(core: Core, source: JetStreamLog, embedded: EmbeddedServer | None) -> Retention:
    """What forgets plans, with the credentials of the user that may purge the log."""
    retention, nats = core.settings.retention, core.settings.nats
    access, url = nats.retention_access, nats.retention_url or nats.url
    if embedded is not None:
        folder = core.settings.data_dir / STORE_FOLDER
        access, url = nats.access, user_url(folder, embedded.address, RETENTION)
    connect: Connect | None = None
    if access is not None:
        connect = partial(Purger.open, url, timeout_s=PURGER_TIMEOUT_S, access=access)
    return Retention(
        core,
        connect,
        source.note_forgotten,
        keep_s=retention.finished_days * DAY_S,
        archive_dir=retention.archive_dir,
    )
