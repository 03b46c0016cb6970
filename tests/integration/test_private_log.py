"""The embedded server's log is private: who is not the service's account reaches none of it."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import nats
import nats.errors
import psutil
import pytest
from nats.aio.client import Client
from nats.js.api import ConsumerConfig, DeliverPolicy

from service.runtime.data_folder import read_holder
from service.runtime.nats_server.credentials import read_context
from service.runtime.nats_server.embedded import EmbeddedServer
from service.runtime.nats_server.process import jetstream_answers, launch
from streams.jetstream.log import JetStreamLog
from streams.jetstream.permissions import READER, RETENTION, SERVICE
from streams.jetstream.read_only import Inspection
from tests.faults.service_process import ServiceProcess
from tests.unit.tokens_world import give
from tests.waiting import eventually, until

ASKED_S = 0.5


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path, 0)
    await server.start()
    log = await JetStreamLog.connect(server.url)
    await log.close()
    yield server
    await server.stop()


async def quiet(_: Exception) -> None:
    """Refusals show by what does not happen."""


async def user(server: EmbeddedServer, tmp_path: Path, name: str) -> Client:
    context = read_context(tmp_path / "nats", name)
    assert context is not None
    assert context.url == server.address
    return await nats.connect(context.with_credentials, allow_reconnect=False, error_cb=quiet)


async def asked(client: Client, subject: str, body: Any = None) -> bool:
    """Whether JetStream answers the question at all."""
    try:
        await client.request(
            f"$JS.API.{subject}", json.dumps(body).encode() if body else b"", timeout=ASKED_S
        )
    except (nats.errors.TimeoutError, nats.errors.NoRespondersError):
        return False
    return True


async def facts(server: EmbeddedServer) -> list[str]:
    """The subjects of all messages in PLANS, as the service sees them."""
    log = await JetStreamLog.connect(server.url)
    try:
        state = await log.state()
        return [f"{state.first}", *(str(each.sequence) for each in await log.scan(0, 100))]
    finally:
        await log.close()


async def test_only_the_generated_credentials_connect(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    port = int(server.address.rpartition(":")[2])
    service = read_context(tmp_path / "nats", SERVICE)
    assert service is not None
    guessed = msgspec.structs.replace(service, password=service.password[1:])
    answers = partial(jetstream_answers, "127.0.0.1", port)
    assert await asyncio.to_thread(answers, user=service)
    assert not await asyncio.to_thread(answers, user=None)
    assert not await asyncio.to_thread(answers, user=guessed)


PURGES = [
    ("STREAM.PURGE.PLANS", None),
    ("STREAM.DELETE.PLANS", None),
    ("STREAM.MSG.DELETE.PLANS", {"seq": 1}),
    ("STREAM.PURGE.AUDIT", None),
    ("STREAM.DELETE.AUDIT", None),
    ("STREAM.SNAPSHOT.PLANS", {"deliver_subject": "plans.a.b"}),
    ("STREAM.RESTORE.PLANS", {}),
    ("ACCOUNT.PURGE.HOLDFAST", None),
]


@pytest.mark.parametrize("name", [SERVICE, READER])
async def test_no_user_purges_or_deletes(server: EmbeddedServer, tmp_path: Path, name: str) -> None:
    client = await user(server, tmp_path, name)
    service = await user(server, tmp_path, SERVICE)
    await service.jetstream().publish("plans.p.t", b"{}")
    for subject, body in PURGES:
        assert not await asked(client, subject, body), subject
    assert await facts(server) == ["1", "1"]
    await client.close()
    await service.close()


async def test_the_user_that_may_purge_the_log_may_do_nothing_else(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    client = await user(server, tmp_path, RETENTION)
    service = await user(server, tmp_path, SERVICE)
    await service.jetstream().publish("plans.p.t", b"{}")
    for subject, body in PURGES[1:]:
        assert not await asked(client, subject, body), subject
    await client.publish("plans.p.t", b"{}")
    await client.flush()
    assert await facts(server) == ["1", "1"]
    assert await asked(client, *PURGES[0])
    await client.close()
    await service.close()


async def test_the_reader_reads_as_the_nats_command_does(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    service = await user(server, tmp_path, SERVICE)
    for number in range(3):
        await service.jetstream().publish(f"plans.p.t{number}", b"{}")
    reader = await user(server, tmp_path, READER)
    heard = await reader.subscribe("plans.>")
    jetstream = reader.jetstream()
    assert (await jetstream.stream_info("PLANS")).state.messages == 3
    assert [each.config.name for each in await jetstream.streams_info()] == ["AUDIT", "PLANS"]
    assert (await jetstream.get_msg("PLANS", 2)).subject == "plans.p.t1"
    assert (await jetstream.get_last_msg("PLANS", "plans.p.t2", direct=True)).seq == 3
    view = await jetstream.pull_subscribe(
        "plans.>", stream="PLANS", config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
    )
    seen = await view.fetch(3, timeout=20)
    assert [each.subject for each in seen] == ["plans.p.t0", "plans.p.t1", "plans.p.t2"]
    await service.publish("plans.p.t9", b"{}")
    assert (await heard.next_msg(timeout=20)).subject == "plans.p.t9"
    await reader.close()
    await service.close()


async def test_the_reader_writes_nothing_neither_directly_nor_as_an_answer(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    service = await user(server, tmp_path, SERVICE)
    await service.jetstream().publish("plans.p.t", b"{}")
    reader = await user(server, tmp_path, READER)
    view = await reader.jetstream().pull_subscribe("plans.>", stream="PLANS")
    consumer = (await view.consumer_info()).name
    await reader.publish("plans.p.forged", b"{}")
    await reader.publish("audit.claimed.p.t", b"{}")
    for question in (
        "INFO",
        "STREAM.INFO.PLANS",
        "STREAM.MSG.GET.PLANS",
        "DIRECT.GET.PLANS.plans.p.t",
        f"CONSUMER.MSG.NEXT.PLANS.{consumer}",
    ):
        await reader.publish(f"$JS.API.{question}", b'{"seq": 1}', reply="plans.p.forged")
    push = {"deliver_subject": "plans.p.forged", "deliver_policy": "all", "name": "push"}
    await asked(reader, "CONSUMER.CREATE.PLANS.push", {"stream_name": "PLANS", "config": push})
    for subject, body in (
        ("STREAM.CREATE.MINE", {"name": "MINE", "subjects": ["plans.mine.>"]}),
        ("STREAM.UPDATE.PLANS", {"name": "PLANS", "subjects": ["plans.>"], "max_msgs": 1}),
    ):
        assert not await asked(reader, subject, body), subject
    await reader.flush()
    await reader.close()
    await service.jetstream().publish("plans.p.last", b"{}")
    assert await facts(server) == ["1", "1", "2"]
    await service.close()


async def test_doctors_look_at_the_log_needs_only_the_reader(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    service = await user(server, tmp_path, SERVICE)
    for number in range(20):
        await service.jetstream().publish(f"plans.p.t{number}", b"{}")
    await service.close()
    context = read_context(tmp_path / "nats", READER)
    assert context is not None
    inspection = await Inspection.open(context.with_credentials, timeout_s=5)
    assert (await inspection.state()).head == 20
    assert len(await inspection.log.scan(0, 100)) == 20
    assert await inspection.audited("claimed", 0.0, 10) == []
    await inspection.close()


async def test_credentials_are_in_private_files_and_in_no_command_line(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    store = tmp_path / "nats"
    secret = [read_context(store, name) for name in (SERVICE, READER)]
    assert len({each.password for each in secret if each}) == 2
    for name in ("server.conf", "service.json", "reader.json"):
        assert stat.S_IMODE((store / name).stat().st_mode) == 0o600
    process = psutil.Process(server.pid)
    for each in secret:
        assert each is not None
        told = " ".join(process.cmdline()) + repr(process.environ())
        assert each.password not in told
        assert each.password.encode() not in (store / "server.log").read_bytes()


async def test_credentials_outlive_the_server_and_a_restart(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    before, url = read_context(tmp_path / "nats", READER), server.url
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await eventually(lambda: server.restarts == 1)
    assert read_context(tmp_path / "nats", READER) == before
    assert server.url == url


async def test_a_log_from_before_there_were_users_goes_on(tmp_path: Path) -> None:
    old = launch(tmp_path / "nats", 0)
    log = await JetStreamLog.connect(old.url)
    state = await log.state()
    await log.close()
    client = await nats.connect(old.url)
    await client.jetstream().publish("plans.p.t", b"{}")
    await client.close()
    old.stop()

    server = EmbeddedServer(tmp_path, 0)
    log = await JetStreamLog.connect(await server.start())
    upgraded = await log.state()
    assert (upgraded.epoch, upgraded.head) == (state.epoch, 1)
    await log.close()
    await server.stop()


async def test_a_cut_credentials_file_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "nats").mkdir()
    (tmp_path / "nats" / "service.json").write_text("{")
    server = EmbeddedServer(tmp_path, 0)
    log = await JetStreamLog.connect(await server.start())
    await log.close()
    await server.stop()


OTHER_ACCOUNT = """
    import json, os, socket, sys
    ENDING = ("PURGE.PLANS", "DELETE.PLANS", "MSG.DELETE.PLANS", "PURGE.AUDIT", "DELETE.AUDIT")
    folder, address, api = sys.argv[1:]
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    reached = []
    def attempt(name, act):
        try:
            act(); reached.append(name)
        except OSError:
            pass
    attempt("list", lambda: os.listdir(folder))
    for name in ("holdfast.lock", "readmodels.sqlite", "nats/service.json", "nats/reader.json",
                 "nats/server.conf", "nats/server.log", "nats/jetstream"):
        attempt(name, lambda: os.stat(os.path.join(folder, name)))
        attempt(name, lambda: open(os.path.join(folder, name), "rb"))
    for name in ("tokens", "nowhere"):
        attempt(name, lambda: open(os.path.join(os.path.dirname(folder), name), "rb"))
    attempt("write", lambda: open(os.path.join(folder, "new"), "wb"))
    host, port = address.rpartition("/")[2].split(":")
    with socket.socket() as line:
        line.connect((host, int(port)))
        subjects = ["plans.p.t", *("$JS.API.STREAM." + each for each in ENDING)]
        told = "".join(f"PUB {each} 2\\r\\n{{}}\\r\\n" for each in subjects)
        line.sendall(b'CONNECT {"verbose":true}\\r\\n' + told.encode() + b"PING\\r\\n")
        line.settimeout(5)
        said = b""
        try:
            while part := line.recv(4096):
                said += part
        except ConnectionResetError:
            pass
    web = api.rpartition("/")[2].split(":")
    with socket.socket() as line:
        line.connect((web[0], int(web[1])))
        host = "Host: " + ":".join(web)
        line.sendall("\\r\\n".join(["GET /v1/plans HTTP/1.1", host, "", ""]).encode())
        answer = line.recv(4096)
    print(json.dumps([reached, said.decode(), answer.split()[1].decode()]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another account")
@pytest.mark.parametrize("tokens", [False, True], ids=["without-tokens", "with-tokens"])
def test_another_account_reads_writes_and_asks_nothing(*, tokens: bool) -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)  # the folder above hides nothing
        given = {"auth__tokens_file": str(Path(place) / "tokens")} if tokens else {}
        token = give(Path(place) / "tokens", "me", "operator") if tokens else ""
        service = ServiceProcess(Path(place) / "data", **given).start()
        try:
            holder = read_holder(service.data_dir)
            assert holder is not None
            before = _log_after_a_plan(service.url, token)
            code = textwrap.dedent(OTHER_ACCOUNT)
            command = [
                sys.executable,
                "-c",
                code,
                str(service.data_dir),
                holder.nats_url,
                service.url,
            ]
            told = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=30, cwd="/")
            reached, said, status = json.loads(told.stdout)
            assert status == ("401" if tokens else "200"), "without tokens accounts are trusted"
            assert reached == []
            assert "Authorization Violation" in said
            assert "PONG" not in said
            assert _log_after_a_plan(service.url, token) == before, "the log is as it was"
            assert stat.S_IMODE(service.data_dir.stat().st_mode) == 0o700
            loose = [
                path
                for path in service.data_dir.rglob("*")
                if path.is_file() and path.stat().st_mode & 0o077
            ]
            assert loose == []
        finally:
            service.stop()


def _log_after_a_plan(url: str, token: str) -> tuple[int, int]:
    """Where the log, which begins at 1, ends, and where the one plan in it stands."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    plan = {"id": "kept", "tasks": [{"id": "t", "kind": "outside"}]}
    with httpx.Client(base_url=url, headers=headers, timeout=20) as client:
        assert client.post("/v1/plans", json=plan).is_success
        until(
            lambda: client.get("/v1/ops/status").json()["log"]["first"] == 1,
            what="the log begins at 1",
        )
        head = client.get("/v1/ops/status").json()["log"]["head"]
        return head, client.get("/v1/plans/kept").json()["sequence"]
