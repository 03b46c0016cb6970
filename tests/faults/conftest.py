"""What the fault tests share: instances as processes, which end with their test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.service_process import ServiceProcess

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
