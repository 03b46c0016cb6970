"""The log of a data folder, for commands that work without an instance or beside one."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from service.runtime.data_folder import DataFolder, DataFolderBusy
from service.runtime.nats_server.embedded import EmbeddedServer, log_of_running
from service.runtime.nats_server.process import EmbeddedServerError
from service.settings.config import Settings
from streams.jetstream.log import JetStreamLog
from streams.log import LogReset, LogUnavailable, TopologyMismatch

CANNOT_BE_HAD = (EmbeddedServerError, LogReset, LogUnavailable, TopologyMismatch)
"""What is raised where the log of a folder cannot be reached or read."""


async def own_log(settings: Settings, stack: AsyncExitStack) -> JetStreamLog:
    """The log of a folder that we hold: by URL, or an embedded server of our own."""
    url = settings.nats.url
    if not url:
        server = EmbeddedServer(settings.data_dir, port=0)
        stack.push_async_callback(server.stop)
        url = await server.start()
    return await stack.enter_async_context(_connected(url, settings))


async def any_log(settings: Settings, stack: AsyncExitStack) -> JetStreamLog:
    """The log of a folder, whether or not an instance is running on it."""
    try:
        stack.enter_context(DataFolder.acquire(settings.data_dir, settings.executor.instance_id))
    except DataFolderBusy:
        running = log_of_running(settings.data_dir)
        return await stack.enter_async_context(_connected(settings.nats.url or running, settings))
    return await own_log(settings, stack)


@asynccontextmanager
async def _connected(url: str, settings: Settings) -> AsyncGenerator[JetStreamLog]:
    source = await JetStreamLog.connect(
        url, replicas=settings.nats.replicas, access=settings.nats.access
    )
    try:
        yield source
    finally:
        await source.close()
