"""An appender on a log whose answers the test chooses."""

from collections.abc import AsyncIterator

import pytest

from streams.jetstream.drafts import AppenderLimits
from streams.jetstream.group_commit import Appender
from tests.unit.appender.fake_log import FakeLog, Heard


@pytest.fixture
def log() -> FakeLog:
    return FakeLog()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def appender(log: FakeLog, heard: Heard) -> AsyncIterator[Appender]:
    made = Appender(log, limits=AppenderLimits(budget_s=0.2, max_waiting=3_000), observer=heard)
    yield made
    await made.close()
