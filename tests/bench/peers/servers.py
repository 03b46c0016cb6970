"""Servers that peers need: private ones on Unix sockets in a temporary folder, if installed."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from service.runtime.child_process import dying_with_parent
from tests.bench import bed
from tests.waiting import until

START_S = 30.0
STOP_S = 30.0
POSTGRESQL = "/usr/lib/postgresql"  # where Debian keeps the programs that are in no PATH


class Missing(Exception):
    """Something that a peer needs is not on this machine; the message names it and the remedy."""


@contextmanager
def nats() -> Generator[str]:
    """As Holdfast's own: every write is synced before it is acknowledged."""
    with bed.nats() as server:
        yield server.url


@contextmanager
def redis(fsync: str) -> Generator[str]:
    """A Redis that appends to a file; ``fsync`` is its `appendfsync`. Gives the socket's path."""
    program = shutil.which("redis-server")
    if program is None:
        raise Missing("redis-server is not installed (Debian: apt-get install redis-server)")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "redis.sock"
        flags = {
            "port": "0", "unixsocket": str(path), "dir": folder, "save": "",
            "appendonly": "yes", "appendfsync": fsync, "logfile": str(Path(folder) / "log"),
        }  # fmt: skip
        words = [word for name, value in flags.items() for word in (f"--{name}", value)]
        with _running(dying_with_parent(program, *words), path):
            yield str(path)


@contextmanager
def postgresql() -> Generator[str]:
    """A PostgreSQL with its own durable defaults, and connections enough. Gives the conninfo."""
    programs = [_postgresql_program(name) for name in ("initdb", "postgres")]
    user = _unprivileged()
    become = _as_user(user) if user is not None else []
    with tempfile.TemporaryDirectory() as folder:
        if user is not None:
            shutil.chown(folder, user)
        data = str(Path(folder) / "data")
        subprocess.run(
            [*become, programs[0], "-D", data, "-A", "trust", "-U", "bench", "-E", "UTF8"],
            check=True, stdout=subprocess.DEVNULL, timeout=120, cwd=folder,
        )  # fmt: skip
        options = ["-k", folder, "-c", "listen_addresses=", "-c", "max_connections=300"]
        ready = Path(folder) / ".s.PGSQL.5432"  # the name of its socket; there is no port
        with _running([*become, programs[1], "-D", data, *options], ready):
            _accepts(folder)
            yield f"host={folder} user=bench dbname=postgres"


def _postgresql_program(name: str) -> str:
    found = shutil.which(name)
    others = sorted(Path(POSTGRESQL).glob(f"*/bin/{name}"))
    if found is None and not others:
        raise Missing(f"{name} is not installed (Debian: apt-get install postgresql)")
    return found or str(others[-1])


def _unprivileged() -> str | None:
    """Who runs PostgreSQL, which refuses to run as root; None: the same user as this process."""
    if os.getuid() != 0:
        return None
    names = {each.pw_name for each in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@contextmanager
def _running(command: list[str], ready: Path) -> Generator[None]:
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=ready.parent,
        )  # fmt: skip
        try:
            until(partial(_there, process, ready), START_S, f"{command[0]} is ready")
            yield
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _there(process: subprocess.Popen[bytes], ready: Path) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"{process.args} ended with {process.returncode}")
    return ready.exists()


def _as_user(user: str) -> list[str]:
    """What runs a command as that user, and ends it when its parent ends."""
    program = shutil.which("setpriv")
    if program is None:
        raise Missing("setpriv is not installed (Debian: apt-get install util-linux)")
    return [program, f"--reuid={user}", f"--regid={user}", "--clear-groups", "--pdeathsig=INT"]


def _accepts(folder: str) -> None:
    """Wait until PostgreSQL has finished its start; its socket is there a moment before."""
    program = _postgresql_program("pg_isready")
    command = [program, "-q", "-h", folder]
    until(
        lambda: subprocess.run(command, check=False, timeout=START_S).returncode == 0,
        START_S,
        "PostgreSQL accepts connections",
    )
