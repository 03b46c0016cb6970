"""DNS rebinding by a real Chromium, in a network of its own with the attacker's name server."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.other_site import SECRET
from tests.programs import program

WITHIN_S = 150.0
NAMESPACES = ("--user", "--map-root-user", "--net", "--mount")
UNTOUCHED = [[SECRET, "READY"]]

pytestmark = [pytest.mark.faults, pytest.mark.timeout(200)]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not pytest's: its path is too long for Chromium's sockets."""
    made = tempfile.mkdtemp(prefix="rebinding-")
    yield Path(made)
    shutil.rmtree(made, ignore_errors=True)


def visited(folder: Path, module: str) -> dict[str, Any]:
    """What the attacker's pages could read of an instance that ``module`` runs, and its plans."""
    for needed in ("chromium", "chromedriver"):
        program(needed)
    unshare = (program("unshare"), *NAMESPACES)
    tried = subprocess.run((*unshare, "true"), capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"the system allows no namespaces here: {tried.stderr.strip()}")
    done = subprocess.run(
        (*unshare, sys.executable, "-m", "tests.clients.rebinding", str(folder), module),
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    return json.loads(done.stdout)


def readable(said: list[str]) -> list[str]:
    """What holds data of the instance and is no refusal."""
    return [each for each in said if SECRET in each and "urn:holdfast:problem" not in each]


def test_a_name_that_changes_its_address_reads_and_changes_nothing(folder: Path) -> None:
    seen = visited(folder, "service")
    assert seen["addresses"][0] == "127.0.0.2"
    assert seen["addresses"][-1] == "127.0.0.1"
    assert any("Host: evil.test" in each for each in seen["rebound"])  # it was the instance
    assert readable(seen["rebound"]) == []
    assert seen["after_rebinding"] == UNTOUCHED
    assert readable(seen["other_port"]) == []
    assert seen["plans"] == UNTOUCHED


def test_without_the_check_of_host_the_same_visit_reads_and_changes_plans(folder: Path) -> None:
    seen = visited(folder, "tests.clients.unguarded_service")
    ways = [each[:10] for each in readable(seen["rebound"])]
    assert len(ways) >= 3, ways  # the list, the plan, events, and the frame or the popup
    assert dict(seen["after_rebinding"]) == {SECRET: "CANCELLED", "evil": "READY"}
