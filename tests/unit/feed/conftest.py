"""A feed on a log with two plans."""

import pytest

from tests.unit.feed.two_plans import two_plans
from tests.unit.feed.world import (
    World,
)


@pytest.fixture
async def world() -> World:
    return await two_plans()
