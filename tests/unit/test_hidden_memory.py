"""A process that hides its memory cannot be dumped, and the programs that it starts can."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import ctypes, subprocess, sys
from service.runtime.child_process import hide_memory
PR_GET_DUMPABLE = 3
hide_memory()
print(ctypes.CDLL(None).prctl(PR_GET_DUMPABLE))
code = "import ctypes; print(ctypes.CDLL(None).prctl(3))"
print(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
def test_memory_is_hidden_for_the_process_alone() -> None:
    root = Path(__file__).parents[2]
    told = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=root, capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["0", "1"]
