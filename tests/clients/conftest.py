"""What the tests with other people's programs share: a browser, and instances as processes."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from service.app import Instance
from service.core.core import Core
from tests.clients.browser import Browser
from tests.conftest import PrivateServer
from tests.faults.service_process import ServiceProcess
from tests.integration.sse_world import serving
from tests.ports import free_port


class Browsers:
    """One Chromium for all tests; another one after a test that has lost it."""

    def __init__(self) -> None:
        self._running: Browser | None = None

    def running(self) -> Browser:
        """The browser. A start that fails is the fault of one test: the next one starts anew."""
        if self._running is None or not self._running.answers:
            self.end()
            self._running = Browser().__enter__()
        return self._running

    def end(self) -> None:
        """End the browser, if there is one."""
        ended, self._running = self._running, None
        if ended is not None:
            ended.end()


@pytest.fixture(scope="session")
def browsers() -> Iterator[Browsers]:
    """The browser of all tests of this process; each opens its own page."""
    browsers = Browsers()
    yield browsers
    browsers.end()


@pytest.fixture
def browser(browsers: Browsers) -> Browser:
    return browsers.running()


@pytest.fixture
async def instance(private_nats: PrivateServer, tmp_path: Path) -> AsyncIterator[Instance]:
    """One instance in this process, for a test of what a client of it is sent."""
    async with serving(private_nats.url, tmp_path / "one") as instance:
        yield instance


@pytest.fixture
async def writer(private_nats: PrivateServer, tmp_path: Path) -> AsyncIterator[Instance]:
    """Another instance on the same log, in this process: it writes also while `service` is dead."""
    async with serving(private_nats.url, tmp_path / "writer") as writer:
        yield writer


@pytest.fixture
def core(writer: Instance) -> Core:
    return writer.core


@pytest.fixture
def service(private_nats: PrivateServer, tmp_path: Path) -> Iterator[ServiceProcess]:
    """The instance that is followed: a process that a test may kill; its port stays."""
    service = ServiceProcess(
        tmp_path / "service",
        nats_url=private_nats.url,
        roles="api",
        http__port=str(free_port()),
    )
    yield service.start()
    service.stop()


@pytest.fixture
def alone(browser: Browser) -> Iterator[Browser]:
    """The browser with nothing left of the test before: a tab of its own would cost 0.3 s."""
    browser.clear()
    yield browser
    refused = [each for each in browser.complaints() if "content security policy" in each.lower()]
    browser.clear()
    assert refused == [], "no screen does what its policy forbids"
