"""A disk that was full once: writes are refused while it lasts, and it heals without a restart."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults.jitter_world import small_disk
from tests.faults.service_process import ServiceProcess, until

pytestmark = pytest.mark.faults

NewService = Callable[..., ServiceProcess]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can make a small disk")
    with small_disk(tmp_path / "disk") as disk:
        yield disk


def fill(ballast: Path) -> None:
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 512):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def submit(service: ServiceProcess, plan_id: str, context: str = "") -> int:
    plan = {"id": plan_id, "context": context, "tasks": [{"id": "t", "kind": "manual"}]}
    return httpx.post(f"{service.url}/v1/plans", json=plan, timeout=30).status_code


@pytest.mark.timeout(120)
def test_a_disk_that_was_full_and_has_room_again_takes_writes(
    new_service: NewService, disk: Path
) -> None:
    service = new_service(disk / "data", roles="api,daemons")
    service.start()
    assert submit(service, "before") == httpx.codes.CREATED
    fill(disk / "ballast")
    assert submit(service, "while", "x" * 100_000) in (503, 507)
    until(lambda: "log" in service.readiness()[1], 10, "readiness names the log")
    (disk / "ballast").unlink()
    until(lambda: service.readiness() == (200, []), 30, "it is ready again without a write")
    assert submit(service, "after") == httpx.codes.CREATED
    listed = httpx.get(f"{service.url}/v1/plans").json()["items"]
    assert {"before", "after"} <= {each["plan_id"] for each in listed}
