"""Real servers for the tests: one nats-server per session, private ones for tests that kill."""

import gc
import logging
import os
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog

from service.runtime.nats_server.process import ServerProcess, launch
from tests.freezing import freeze
from tests.ports import free_port, give_back
from tests.reports import pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]  # a hook that pytest finds here

# A parallel run hands out files in this order. Those that take long begin; it ends on files that
# take a second or two each, so that no process is left alone with a long one.
ORDER = tuple(
    f"tests/{name}"
    for name in (
        "cluster/test_campaign",
        "faults/test_prometheus",
        "integration/test_fuzz",
        "cluster",
        "faults/test_doctor",
        "faults/test_jitter",
        "faults/test_sse_exactness",
        "faults/test_sse_slow",
        "faults/test_log_trouble",
        "integration/test_kit_",
        "integration/test_instances",
        "integration/test_rebuild",
        "clients/test_page",
        "faults",
        "clients",
        "integration",
        "contract",
        "property",
        "unit/test_schedulers",
        "unit/test_bounded_protocol",
        "unit/test_executor_leases",
        "unit/test_kit",
        "unit",
    )
)

# Of garbage: after so many objects, so many of these, and so many of those. Python's own are
# 700, 10 and 10.
SEARCHES = (10_000, 10, 10)

# Tests speak to loopback. httpx reads the certificates of all authorities for each client that is
# made, which takes 25 times as long as a request: this process and those it starts find none.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = str(Path(__file__).with_name("no-certificates"))

# A busy machine is no bug: tests that must be quick measure it themselves.
hypothesis.settings.register_profile("holdfast", deadline=None, print_blob=True)
hypothesis.settings.load_profile("holdfast")


def log_plainly() -> None:
    """As structlog begins, without colours and variables of frames: to draw those takes 50 ms."""
    structlog.configure(
        processors=[
            *structlog.get_config()["processors"][:-1],
            structlog.dev.ConsoleRenderer(
                colors=False, exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    )


log_plainly()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected is there to the end of the run: no search for garbage walks over it.

    Measured, such walks took a third of the time of collecting and a fifth of the tests' own.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(*SEARCHES)
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests in `ORDER`; those of a file stay as they stand there."""

    def place(item: pytest.Item) -> int:
        found = (n for n, begin in enumerate(ORDER) if item.nodeid.startswith(begin))
        return next(found, len(ORDER))

    items.sort(key=place)


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """A test may configure the process's log lines; the next one finds what this one has found.

    A server in the test's process does so, too: uvicorn stops the way of `uvicorn.access`.
    """
    root = logging.getLogger()
    handlers = list(root.handlers)
    before = {logger: (logger.level, logger.propagate) for logger in _loggers()}
    yield
    for handler in set(root.handlers).difference(handlers):
        root.removeHandler(handler)
        handler.close()
    for logger in _loggers():
        level, logger.propagate = before.get(logger, (logging.NOTSET, True))
        if logger.level != level:  # setting it empties the caches of all loggers
            logger.setLevel(level)
    structlog.reset_defaults()
    log_plainly()


def _loggers() -> list[logging.Logger]:
    named = tuple(logging.getLogger().manager.loggerDict.values())
    return [logging.getLogger(), *(each for each in named if isinstance(each, logging.Logger))]


class PrivateServer:
    """A nats-server of one test, which may kill, pause and restart it; port and store stay."""

    def __init__(self, folder: Path, configuration: Path | None = None) -> None:
        self._folder = folder
        self._configuration = configuration
        self._port = free_port()
        self._process = self._launch()

    @property
    def url(self) -> str:
        """Where clients connect; the same after a restart."""
        return self._process.url

    @property
    def port(self) -> int:
        return self._port

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """As a power cut: SIGKILL, and wait until it is gone."""
        self._process.send(signal.SIGKILL)
        self._process.wait()

    def pause(self) -> None:
        """As a stalled disk or machine: the port is open and it does not answer."""
        freeze(self.pid)

    def resume(self) -> None:
        self._process.send(signal.SIGCONT)

    def restart(self) -> None:
        """The same store on the same port again; ready on return."""
        self._process.stop()
        self._process = self._launch()

    def stop(self) -> None:
        self._process.stop()
        give_back(self._port)

    def _launch(self) -> ServerProcess:
        return launch(self._folder, self._port, configuration=self._configuration)


@pytest.fixture(scope="session")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The session's server: JetStream, `sync_interval: always`, a free port on loopback.

    HOLDFAST_TEST_NATS_URL names another one, such as a container or a cluster; it is used as it is.
    """
    if url := os.environ.get("HOLDFAST_TEST_NATS_URL"):
        yield url
        return
    server = PrivateServer(tmp_path_factory.mktemp("nats"))
    yield server.url
    server.stop()


@pytest.fixture
def start_nats(tmp_path: Path) -> Iterator[Callable[[], PrivateServer]]:
    """Starts private servers, each with an empty store (some 40 ms); they end with the test."""
    servers: list[PrivateServer] = []

    def start(configuration: Path | None = None) -> PrivateServer:
        server = PrivateServer(tmp_path / f"nats-{len(servers)}", configuration)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def private_nats(start_nats: Callable[[], PrivateServer]) -> PrivateServer:
    """One private server with an empty log."""
    return start_nats()


@pytest.fixture(scope="session")
def long_faults() -> bool:
    """Whether the fault tests run in their long form (`make test-all`)."""
    return os.environ.get("HOLDFAST_FAULTS") == "long"
