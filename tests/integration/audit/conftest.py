"""Instances with an audit trail: on a server of their own, and on one without users."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import PrivateServer
from tests.integration.audit.world import World
from tests.integration.http_world import serving


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with serving(tmp_path) as (instance, client):
        yield World(instance, client)


@pytest.fixture
async def world_beside(tmp_path: Path, private_nats: PrivateServer) -> AsyncIterator[World]:
    """A world on a server without users, so that a test may do what the service may not."""
    async with serving(tmp_path, nats__url=private_nats.url) as (instance, client):
        yield World(instance, client)
