"""Starts chromedriver on a free port, and again when it ends instead of listening."""

import re
import subprocess
from pathlib import Path

from service.runtime.child_process import dying_with_parent
from tests.waiting import until

START_S = 40.0
TRIES = 5
LISTENS = re.compile(r"started successfully on port (\d+)")


def start_driver(
    program: str, folder: Path, tries: int = TRIES
) -> tuple[subprocess.Popen[bytes], int]:
    """The process of ``program`` and its port on loopback; its output stands in ``folder``.

    Fails with what each try has printed.

    It takes a free port of IPv6 and then the same one of IPv4. Where another socket has that one,
    it ends ("IPv4 port not available"): with thousands of connections on a machine this happens.
    """
    ended: list[str] = []
    for number in range(tries):
        output = folder / f"chromedriver-{number}.output"
        process = _launched(program, output)
        if port := _port(process, output):
            return process, port
        ended.append(f"it ended with {process.returncode}: {output.read_text(errors='replace')}")
    raise AssertionError("\n".join([f"{program} does not listen", *ended]))


def _launched(program: str, output: Path) -> subprocess.Popen[bytes]:
    with output.open("wb") as said:
        return subprocess.Popen(
            dying_with_parent(program, "--port=0"),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )


def _port(process: subprocess.Popen[bytes], output: Path) -> int:
    """Where it listens; 0 if it has ended."""

    def is_decided() -> bool:
        return process.poll() is not None or LISTENS.search(_said(output)) is not None

    try:
        until(is_decided, START_S, f"{process.args} listens or ends")
    except BaseException:
        process.kill()
        process.wait()
        raise
    found = LISTENS.search(_said(output))
    return int(found[1]) if found and process.poll() is None else 0


def _said(output: Path) -> str:
    return output.read_text(errors="replace")
