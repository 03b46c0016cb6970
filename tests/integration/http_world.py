"""A real instance behind a real socket, with an embedded nats-server of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from service.app import Instance, running
from service.settings.loading import load_settings
from tests.waiting import answered


@asynccontextmanager
async def serving(
    folder: Path, **flags: object
) -> AsyncIterator[tuple[Instance, httpx.AsyncClient]]:
    """An instance with every role on free ports, and a client of it.

    Its handlers run on threads unless told: a worker host process imports for a third of a second.
    """
    settings = load_settings(
        environment={},
        directory=folder,
        flags={
            "data_dir": str(folder / "data"),
            "http.port": 0,
            "nats.port": 0,
            "sample.enabled": False,
            "executor.web.allow_networks": ("127.0.0.1",),
            "executor.worker.processes": 0,
            **{key.replace("__", "."): value for key, value in flags.items()},
        },
    )
    async with (
        running(settings) as instance,
        httpx.AsyncClient(base_url=instance.http_url, timeout=30) as client,
    ):
        yield instance, client


async def until_status(client: httpx.AsyncClient, path: str, status: str) -> None:
    """Wait until a plan or task shows ``status``."""

    async def shows() -> bool:
        return (await client.get(path)).json()["status"] == status

    await answered(shows, f"{path} is {status}")
