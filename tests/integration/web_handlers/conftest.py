"""A server on loopback that the handlers http and chat ask, and that misbehaves on purpose."""

from collections.abc import Iterator

import pytest

from tests.integration.web_handlers.chat_world import model_server
from tests.integration.web_handlers.web_world import Server


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of one test; connections that it holds open end with it."""
    with model_server() as server:
        yield server
