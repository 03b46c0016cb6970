"""A test whose failure pytest cannot report fails, is reported, and does not end the run."""

import subprocess
import sys
from pathlib import Path

from tests.faults.service_process import ROOT

CONFTEST = "from tests.reports import pytest_runtest_makereport\n"
PLANTED = """
import ast

import pytest


def mismatch():
    raise SystemError("AST constructor recursion depth mismatch (before=78, after=133)")


def time_out():
    pytest.fail("Timeout (>60.0s) from pytest-timeout.")


@pytest.fixture(params=[mismatch, time_out])
def unreadable_sources(request):
    def parse(*_, **__):
        request.param()
    whole, ast.parse = ast.parse, parse
    yield
    # The report of the call has been made.
    ast.parse = whole


class NoText(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def test_sources(unreadable_sources):
    raise ValueError("with sources that cannot be read")


def test_no_text(unreadable_sources):
    raise NoText


def test_half_a_pair():
    raise ValueError("half a pair: \\udce9")


def test_printed_half_a_pair():
    print("half a pair: \\udce9")
    raise ValueError("printed")


def test_good():
    pass
"""


def run(folder: Path) -> str:
    """What pytest prints of the planted tests, which run in a process of their own."""
    (folder / "test_planted.py").write_text(PLANTED)
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "1"]
    ended = subprocess.run(
        [*command, "-c", str(folder / "pytest.ini"), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=ROOT,
        timeout=50,
        check=False,
    )
    return ended.stdout


def test_no_report_ends_a_run(tmp_path: Path) -> None:
    said = run(tmp_path)
    assert "6 failed, 1 passed" in said, said
    assert "INTERNALERROR" not in said
    for words in (
        "ValueError: with sources that cannot be read",
        "SystemError: AST constructor recursion depth mismatch",
        "Failed: Timeout (>60.0s)",
        "NoText: its text raises RuntimeError",
        r"half a pair: \udce9",
        "ValueError: printed",
    ):
        assert words in said, said
