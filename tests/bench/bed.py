"""The ground of a measurement: a nats-server of its own, syncing always, and one instance on it."""

import tempfile
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from service.app import ALL_ROLES, Instance, Role, running
from service.runtime.nats_server.process import ServerProcess, launch
from service.runtime.nats_server.staging import Staging
from service.settings.config import Settings
from service.settings.loading import load_settings
from streams.jetstream.log import JetStreamLog

MEMORY = "/dev/shm"  # noqa: S108 - a folder of its own is made there


@contextmanager
def nats() -> Generator[ServerProcess]:
    """A private server with an empty log; ends with the block."""
    with tempfile.TemporaryDirectory() as folder, _nats_in(Path(folder)) as server:
        yield server


@contextmanager
def _nats_in(folder: Path) -> Generator[ServerProcess]:
    server = launch(folder, 0)
    try:
        yield server
    finally:
        server.stop()


@asynccontextmanager
async def nats_of(*, in_memory: bool) -> AsyncGenerator[ServerProcess]:
    """The same; ``in_memory``: it puts batches together there (`nats.staging_dir`)."""
    if not in_memory:
        with nats() as server:
            yield server
        return
    with tempfile.TemporaryDirectory() as disk, tempfile.TemporaryDirectory(dir=MEMORY) as memory:
        staging = Staging(Path(disk), Path(memory))
        staging.prepare()
        with _nats_in(Path(disk)) as server:
            log = await JetStreamLog.connect(server.url)  # which makes the stream
            await log.close()
            staging.link()
            yield server


def settings_for(nats_url: str, folder: str, flags: Mapping[str, object]) -> Settings:
    """Settings of a measured instance: any free port, no sample."""
    return load_settings(
        environment={},
        flags={
            "nats.url": nats_url,
            "data_dir": folder,
            "http.port": 0,
            "sample.enabled": False,
            **flags,
        },
    )


@asynccontextmanager
async def instance(
    nats_url: str,
    roles: frozenset[Role] = ALL_ROLES,
    flags: Mapping[str, object] | None = None,
) -> AsyncGenerator[Instance]:
    """One instance in this process, on a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        async with running(settings_for(nats_url, folder, flags or {}), roles) as it:
            yield it
