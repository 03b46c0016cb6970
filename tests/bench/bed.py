"""The ground of a measurement: a nats-server of its own, syncing always, and one instance on it."""

import tempfile
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from service.app import ALL_ROLES, Instance, Role, running
from service.runtime.nats_server.process import ServerProcess, launch
from service.settings.config import Settings
from service.settings.loading import load_settings


@contextmanager
def nats() -> Generator[ServerProcess]:
    """A private server with an empty log; ends with the block."""
    with tempfile.TemporaryDirectory() as folder:
        server = launch(Path(folder), 0)
        try:
            yield server
        finally:
            server.stop()


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
