"""A chromedriver that ends instead of listening is started again, and what it printed is shown."""

import os
from pathlib import Path

import pytest

from tests.clients.webdriver import TRIES, start_driver

BUSY = "IPv4 port not available. Exiting..."


def driver(folder: Path, ends: int) -> str:
    """A program that ends so often with what chromedriver prints for a port in use."""
    program = folder / "chromedriver"
    program.write_text(
        f"""#!/bin/sh
echo begun >> {folder}/starts
if [ "$(wc -l < {folder}/starts)" -le {ends} ]; then echo "{BUSY}"; exit 3; fi
echo "ChromeDriver was started successfully on port 1234."
exec sleep 600
"""
    )
    program.chmod(0o755)
    return os.fspath(program)


def starts(folder: Path) -> int:
    return len((folder / "starts").read_text().splitlines())


def test_a_driver_that_finds_its_port_in_use_is_started_again(tmp_path: Path) -> None:
    process, port = start_driver(driver(tmp_path, 2), tmp_path)
    process.kill()
    process.wait()
    assert (port, starts(tmp_path)) == (1234, 3)


def test_a_driver_that_ends_each_time_is_a_failure_that_shows_what_it_printed(
    tmp_path: Path,
) -> None:
    with pytest.raises(AssertionError, match=f"it ended with 3: {BUSY}"):
        start_driver(driver(tmp_path, TRIES), tmp_path)
    assert starts(tmp_path) == TRIES
