"""External servers: users by password, nkey and certificate, and the documented account layout."""

import asyncio
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import nats
import nats.errors
import pytest

from service.runtime.child_process import dying_with_parent
from service.runtime.nats_server.process import find_server
from service.settings.config import ConfigError
from service.settings.loading import load_settings
from streams.jetstream.access import Credentials
from streams.jetstream.log import JetStreamLog
from streams.log import LogUnavailable
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


async def test_the_documented_accounts_serve_holdfast_and_a_viewer(start_server: Start) -> None:
    page = (TOP_LEVEL / "docs/howto/nats-accounts.md").read_text(encoding="utf-8")
    block = re.search(r"```\n(accounts .*?)```", page, re.DOTALL)
    assert block is not None
    text = block[1].replace("$HOLDFAST_PASSWORD", '"one"').replace("$VIEWER_PASSWORD", '"two"')
    port = start_server(text)
    assert await head(f"nats://service:one@127.0.0.1:{port}", Credentials()) == 0
    viewer = await nats.connect(f"nats://viewer:two@127.0.0.1:{port}", error_cb=quiet)
    await viewer.publish("plans.p.t", b"{}")
    assert (await viewer.jetstream().stream_info("PLANS")).state.last_seq == 0
    assert not await asked(viewer, "STREAM.PURGE.PLANS")
    assert not await asked(viewer, "STREAM.DELETE.PLANS")
    await viewer.close()


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
        await head(f"tls://service:secret@127.0.0.1:{start_server('')}", Credentials(), within_s=1)


async def test_an_nkey_connects_and_another_one_does_not(
    start_server: Start, tmp_path: Path
) -> None:
    nkeys = pytest.importorskip("nkeys", reason="needs the extra nkeys")
    pairs = [
        nkeys.from_seed(nkeys.encode_seed(bytes([n]) * 32, nkeys.PREFIX_BYTE_USER)) for n in (1, 2)
    ]
    seeds = [tmp_path / f"seed-{n}" for n in (1, 2)]
    for path, pair in zip(seeds, pairs, strict=True):
        await asyncio.to_thread(path.write_bytes, pair.seed)
    public = pairs[0].public_key.decode()
    port = start_server(f"authorization {{ users: [ {{ nkey: {public} }} ] }}")
    url = f"nats://127.0.0.1:{port}"
    assert await head(url, Credentials(nkey_file=seeds[0])) == 0
    with pytest.raises(LogUnavailable):
        await head(url, Credentials(nkey_file=seeds[1]), within_s=1)


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
