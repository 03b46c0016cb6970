"""External servers: users by password, nkey, JWT and certificate; the documented accounts."""

import asyncio
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.js.api import ConsumerConfig, DeliverPolicy

from service.runtime.child_process import dying_with_parent
from service.runtime.nats_server.process import find_server
from service.settings.config import ConfigError
from service.settings.loading import load_settings
from streams.jetstream.access import Credentials
from streams.jetstream.connection import HEAR_AGAIN_S
from streams.jetstream.log import JetStreamLog
from streams.jetstream.permissions import SERVICE_HEARS, SERVICE_PUBLISHES
from streams.log import LogUnavailable
from tests.contract.drafts import on_plan, won
from tests.integration.http_world import serving, until_status
from tests.integration.nats_jwt import Operator, Party, creds_file
from tests.integration.test_private_log import asked, quiet
from tests.waiting import until

TOP_LEVEL = Path(__file__).parents[2]
Start = Callable[[str], int]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Start]:
    """Starts a nats-server with nats.conf and a text behind it; answers its port."""
    started: list[subprocess.Popen[bytes]] = []

    def start(text: str) -> int:
        folder = tmp_path / f"server-{len(started)}"
        folder.mkdir()
        base = (TOP_LEVEL / "nats.conf").read_text(encoding="utf-8")
        (folder / "nats.conf").write_text(f"{base}\n{text}", encoding="utf-8")
        command = dying_with_parent(
            str(find_server()),
            *("--config", str(folder / "nats.conf"), "--port", "-1"),
            *("--store_dir", str(folder / "store"), "--log", str(folder / "log")),
            *("--ports_file_dir", str(folder)),
        )
        process = subprocess.Popen(command)
        started.append(process)
        ports = folder / f"nats-server_{process.pid}.ports"
        until(lambda: ports.exists() and ports.read_bytes(), what="the server listens")
        return int(json.loads(ports.read_bytes())["nats"][0].rpartition(":")[2])

    yield start
    for process in started:
        process.kill()
        process.wait()


async def head(url: str, access: Credentials, within_s: float = 10.0) -> int:
    log = await JetStreamLog.connect(url, access=access, connect_timeout_s=within_s)
    try:
        return (await log.state()).head
    finally:
        await log.close()


def with_passwords(accounts: str) -> str:
    for name, password in (("HOLDFAST", "one"), ("VIEWER", "two"), ("RETENTION", "three")):
        accounts = accounts.replace(f"${name}_PASSWORD", f'"{password}"')
    return accounts


async def until_heard(log: JetStreamLog, viewer: Client) -> int:
    """Write until the viewer hears what is written; the last sequence.

    That it listens is known in the other account some time after it is known in its own.
    """
    heard = await viewer.subscribe("plans.>")
    await viewer.flush()
    for number in range(20):
        sequence = await won(log, on_plan(f"q{number}"))
        with suppress(nats.errors.TimeoutError):
            assert (await heard.next_msg(timeout=2)).subject.startswith("plans.q")
            return sequence
    raise AssertionError("the viewer hears nothing")


async def test_the_documented_accounts_serve_holdfast_and_a_viewer(start_server: Start) -> None:
    page = (TOP_LEVEL / "docs/howto/nats-accounts.md").read_text(encoding="utf-8")
    block = re.search(r"```\n(accounts .*?)```", page, re.DOTALL)
    assert block is not None
    text = with_passwords(block[1])
    port = start_server(text)
    log = await JetStreamLog.connect(f"nats://service:one@127.0.0.1:{port}")
    assert await won(log, on_plan("p")) == 1
    viewer = await nats.connect(f"nats://viewer:two@127.0.0.1:{port}", error_cb=quiet)
    jetstream = viewer.jetstream()
    assert (await jetstream.stream_info("PLANS")).state.last_seq == 1
    assert (await jetstream.get_msg("PLANS", 1)).subject == "plans.p"
    assert (await jetstream.get_last_msg("PLANS", "plans.p", direct=True)).seq == 1
    reading = ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
    view = await jetstream.pull_subscribe("plans.>", stream="PLANS", config=reading)
    assert [each.subject for each in await view.fetch(1, timeout=20)] == ["plans.p"]
    head = await until_heard(log, viewer)
    await viewer.publish("plans.p.t", b"{}")
    await viewer.publish("$JS.API.STREAM.INFO.PLANS", b"", reply="plans.p.forged")
    await viewer.flush()
    for question in ("PURGE.PLANS", "DELETE.PLANS", "UPDATE.PLANS", "MSG.DELETE.PLANS"):
        assert not await asked(viewer, f"STREAM.{question}", {"name": "PLANS", "seq": 1}), question
    assert (await log.state()).head == head, "nothing that the viewer sent is in the log"
    await viewer.close()
    await log.close()


async def test_an_account_without_the_subject_of_goodbyes_serves_and_is_named_once(
    start_server: Start,
) -> None:
    page = (TOP_LEVEL / "docs/howto/nats-accounts.md").read_text(encoding="utf-8")
    block = re.search(r"```\n(accounts .*?)```", page, re.DOTALL)
    assert block is not None
    text = with_passwords(block[1])
    assert text.count(', "peers.goodbye"') == 2
    port = start_server(text.replace(', "peers.goodbye"', ""))
    log = await JetStreamLog.connect(f"nats://service:one@127.0.0.1:{port}")
    refused: list[str] = []
    await log.goodbyes.listen(lambda _: None, refused.append)
    async with asyncio.timeout(10):
        while not refused:
            await asyncio.sleep(0.01)
    log.goodbyes.tell("w/1")
    async with asyncio.timeout(10):
        while len(refused) < 2:
            await asyncio.sleep(0.01)
    await asyncio.sleep(1.5 * HEAR_AGAIN_S)
    said = [each.lower().split("violation for ")[1].split()[0] for each in refused]
    assert said == ["subscription", "publish"], refused
    assert await won(log, on_plan("p")) == 1
    assert log.last_error is None
    await log.close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, a server's certificate for 127.0.0.1 and a client's."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)  # noqa: S607

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1", encoding="utf-8")
    for name in ("server", "client"):
        openssl(
            "req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}"
        )
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
        openssl("x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.pem")
    return folder


async def test_tls_with_a_ca_and_a_client_certificate(
    start_server: Start, certificates: Path
) -> None:
    port = start_server(
        f'tls {{ cert_file: "{certificates}/server.pem", key_file: "{certificates}/server.key", '
        f'ca_file: "{certificates}/ca.pem", verify: true }}'
    )
    url = f"tls://127.0.0.1:{port}"
    ca, cert, key = (certificates / name for name in ("ca.pem", "client.pem", "client.key"))
    assert await head(url, Credentials(tls_ca=ca, tls_cert=cert, tls_key=key)) == 0
    for access in (Credentials(tls_ca=ca), Credentials(tls_ca=cert)):
        with pytest.raises(LogUnavailable):
            await head(url, access, within_s=1)


async def test_tls_is_never_left_out_because_a_server_offers_none(start_server: Start) -> None:
    with pytest.raises(LogUnavailable, match="offers no TLS"):
        await head(f"tls://service:secret@127.0.0.1:{start_server('')}", Credentials(), within_s=3)


async def test_an_nkey_connects_and_another_one_does_not(
    start_server: Start, tmp_path: Path
) -> None:
    users = [Party("user", number) for number in (1, 2)]
    seeds = [tmp_path / f"seed-{number}" for number in (1, 2)]
    for path, user in zip(seeds, users, strict=True):
        await asyncio.to_thread(path.write_bytes, user.seed)
    port = start_server(f"authorization {{ users: [ {{ nkey: {users[0].public} }} ] }}")
    url = f"nats://127.0.0.1:{port}"
    assert await head(url, Credentials(nkey_file=seeds[0])) == 0
    with pytest.raises(LogUnavailable):
        await head(url, Credentials(nkey_file=seeds[1]), within_s=1)


SERVICE_MAY = {"pub": {"allow": [*SERVICE_PUBLISHES]}, "sub": {"allow": [*SERVICE_HEARS]}}


async def test_an_instance_runs_with_a_creds_file_and_the_documented_permissions(
    start_server: Start, tmp_path: Path
) -> None:
    operator = Operator(disk_storage=100_000_000)
    url = f"nats://127.0.0.1:{start_server(operator.configuration)}"
    user = Party("user", 4)
    creds = await asyncio.to_thread(
        partial(creds_file, tmp_path / "service.creds", operator.account, user, **SERVICE_MAY)
    )
    async with serving(tmp_path, nats__url=url, nats__creds_file=str(creds)) as (_, client):
        plan = {"id": "p", "tasks": [{"id": "t", "kind": "echo", "input": {"n": 1}}]}
        assert (await client.post("/v1/plans", json=plan)).status_code == 201
        await until_status(client, "/v1/plans/p", "COMPLETED")
    log = await JetStreamLog.connect(url, access=Credentials(creds_file=creds))
    assert (await log.state()).max_bytes == 50_000_000, "half of what the account's JWT permits"
    await log.close()


async def test_a_creds_file_of_another_account_or_an_expired_one_does_not_connect(
    start_server: Start, tmp_path: Path
) -> None:
    operator, stranger = Operator(), Party("account", 9)
    url = f"nats://127.0.0.1:{start_server(operator.configuration)}"
    make = partial(asyncio.to_thread, creds_file)
    user = Party("user", 4)
    wrong = [
        await make(tmp_path / "stranger.creds", stranger, user),
        await make(tmp_path / "expired.creds", operator.account, user, expires=1_000_000_000),
    ]
    for creds in wrong:
        with pytest.raises(LogUnavailable) as refused:
            await head(url, Credentials(creds_file=creds), within_s=1)
        assert user.seed.decode() not in str(refused.value)
    with pytest.raises(LogUnavailable):
        await head(url, Credentials(), within_s=1)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"creds_file": "a"}, "nats.creds_file"),
        ({"url": "nats://h:1", "creds_file": "absent"}, "nats.creds_file"),
        ({"url": "nats://h:1", "tls_ca": "a"}, "nats.tls_ca"),
        ({"url": "tls://h:1", "tls_cert": "a"}, "nats.tls_cert"),
        ({"url": "nats://h:1", "creds_file": "a", "nkey_file": "a"}, "nats.nkey_file"),
    ],
)
def test_files_that_do_not_fit_stop_the_start(
    tmp_path: Path, given: dict[str, str], key: str
) -> None:
    (tmp_path / "a").touch()
    flags = {
        f"nats.{name}": value if name == "url" else str(tmp_path / value)
        for name, value in given.items()
    }
    with pytest.raises(ConfigError, match=key):
        load_settings(environment={}, flags=flags, directory=tmp_path)
