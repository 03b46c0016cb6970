"""What the fault tests share: instances as processes, and the report that is printed at the end."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.faults.report import Record, Report
from tests.faults.service_process import ServiceProcess

_REPORT = pytest.StashKey[Report]()

StartService = Callable[..., ServiceProcess]


@pytest.fixture
def new_service(tmp_path: Path) -> Iterator[StartService]:
    """Makes instances that are not started yet, each with a data folder of its own by default."""
    made: list[ServiceProcess] = []

    def make(data_dir: Path | None = None, **options: str) -> ServiceProcess:
        service = ServiceProcess(data_dir or tmp_path / f"data-{len(made)}", **options)
        made.append(service)
        return service

    yield make
    for service in made:
        service.stop()


@pytest.fixture
def start_service(new_service: StartService) -> StartService:
    """Makes instances and waits until they are ready."""

    def start(data_dir: Path | None = None, **options: str) -> ServiceProcess:
        return new_service(data_dir, **options).start()

    return start


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> Report:
    """Where a fault test puts its figures; all of them are printed when the run has ended."""
    return pytestconfig.stash.setdefault(_REPORT, Report())


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process of a parallel run hands its figures to the one that prints."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        report = session.config.stash.get(_REPORT, Report())
        output["figures"] = msgspec.to_builtins(report.records)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over the figures of a process of a parallel run."""
    report = node.config.stash.setdefault(_REPORT, Report())
    for record in msgspec.convert(
        getattr(node, "workeroutput", {}).get("figures", []), list[Record]
    ):
        report.add(record.question, record.case, **record.figures)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what was measured, and where it is kept."""
    report = config.stash.get(_REPORT, None)
    if report is not None and report.records:
        terminalreporter.section("what the fault tests measured")
        for line in report.lines():
            terminalreporter.line(line)
        terminalreporter.line(f"kept in {report.path}")
