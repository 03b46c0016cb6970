"""The streams are bounded in bytes, older ones too; never against an operator or the facts."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from secrets import token_hex
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from streams.jetstream.audit_stream import TrailEntry
from streams.jetstream.bounds import MARK, StreamBounds
from streams.jetstream.log import JetStreamLog
from streams.jetstream.names import PLAIN
from streams.jetstream.topology import audit_stream, plans_stream
from streams.log import LogFull, LogUnavailable
from streams.plan.events import Completed
from tests.conftest import PrivateServer
from tests.contract.drafts import on_task, won
from tests.contract.wire import ask

MIB = 1024 * 1024
DISK = StreamBounds(plans_share=0.5, audit_bytes=3 * MIB, disk_free=100 * MIB)

Open = Callable[[StreamBounds], Awaitable[JetStreamLog]]


@pytest.fixture
async def connect(private_nats: PrivateServer) -> AsyncIterator[Open]:
    opened: list[JetStreamLog] = []

    async def connect(bounds: StreamBounds) -> JetStreamLog:
        opened.append(await JetStreamLog.connect(private_nats.url, bounds=bounds))
        return opened[-1]

    yield connect
    for log in opened:
        await log.close()


async def api(url: str, question: str, body: object = None) -> dict[str, Any]:
    answer = await ask(url, question, b"" if body is None else msgspec.json.encode(body))
    told = msgspec.json.decode(answer)
    assert "error" not in told, told["error"]
    return told


async def bounds_at(url: str) -> tuple[int, int]:
    """What PLANS and AUDIT may hold; -1 for no bound."""
    infos = [await api(url, f"STREAM.INFO.{name}") for name in ("PLANS", "AUDIT")]
    return infos[0]["config"]["max_bytes"], infos[1]["config"]["max_bytes"]


async def older_streams(url: str) -> None:
    """The streams as a Holdfast made them that knew no bounds."""
    for wanted in (plans_stream(PLAIN) | {"max_bytes": -1}, audit_stream(PLAIN)):
        await api(url, f"STREAM.CREATE.{wanted['name']}", wanted)


async def edited(url: str, name: str, **changes: object) -> None:
    """`nats stream edit`."""
    config = (await api(url, f"STREAM.INFO.{name}"))["config"]
    await api(url, f"STREAM.UPDATE.{name}", config | changes)


async def write(log: JetStreamLog, *sizes: int) -> None:
    for size in sizes:
        said = Completed(owner="w", attempt=1, output=Raw(b'"' + b"x" * size + b'"'))
        await won(log, on_task(token_hex(8), 0, said))


async def test_new_streams_are_bounded_by_the_disk(
    connect: Open, private_nats: PrivateServer
) -> None:
    log = await connect(DISK)
    assert await bounds_at(private_nats.url) == (50 * MIB, 3 * MIB)
    assert (await log.state()).max_bytes == 50 * MIB


async def test_streams_of_an_older_holdfast_take_their_bounds_and_keep_their_facts(
    connect: Open, private_nats: PrivateServer
) -> None:
    await older_streams(private_nats.url)
    old = await connect(StreamBounds())
    await write(old, *[10_000] * 20)
    before = await old.state()
    log = await connect(DISK)
    after = await log.state()
    assert (after.epoch, after.first, after.head) == (before.epoch, 1, 20)
    assert len(await log.scan(0, 100)) == 20
    plans, audit = await bounds_at(private_nats.url)
    assert (plans, audit) == (50 * MIB + after.size_bytes // 2, 3 * MIB), (
        "the log's own bytes count"
    )


async def test_a_bound_of_ours_follows_the_settings(
    connect: Open, private_nats: PrivateServer
) -> None:
    await connect(DISK)
    await connect(StreamBounds(plans_bytes=7 * MIB, audit_bytes=5 * MIB))
    assert await bounds_at(private_nats.url) == (7 * MIB, 5 * MIB)


@pytest.mark.parametrize("marked", [False, True], ids=["older", "ours"])
async def test_a_bound_of_an_operator_stays(
    connect: Open, private_nats: PrivateServer, *, marked: bool
) -> None:
    await older_streams(private_nats.url)
    if marked:
        await connect(DISK)
    await edited(private_nats.url, "PLANS", max_bytes=11 * MIB)
    await edited(private_nats.url, "AUDIT", max_bytes=12 * MIB)
    await connect(DISK)
    assert await bounds_at(private_nats.url) == (11 * MIB, 12 * MIB)
    if marked:
        await edited(private_nats.url, "PLANS", max_bytes=-1)
        await connect(DISK)
        assert (await bounds_at(private_nats.url))[0] == -1, "no bound is a choice, too"


async def test_a_log_is_never_bounded_below_what_it_holds(
    connect: Open, private_nats: PrivateServer
) -> None:
    await older_streams(private_nats.url)
    log = await connect(StreamBounds())
    await write(log, *[10_000] * 20)
    await connect(StreamBounds(plans_bytes=100_000))
    assert (await bounds_at(private_nats.url))[0] == -1
    await write(log, 10_000)
    assert ((await log.state()).first, (await log.state()).head) == (1, 21)


async def test_a_full_log_says_its_bound_and_what_raises_it_and_drops_nothing(
    connect: Open,
) -> None:
    log = await connect(StreamBounds(plans_bytes=100_000))
    await log.state()
    with pytest.raises(LogFull, match=r"PLANS may hold 100,000 bytes: raise nats\.plans_max_bytes"):
        await write(log, *[10_000] * 20)
    held = (await log.state()).head
    assert 5 < held < 20
    assert len(await log.scan(0, 100)) == held
    await connect(StreamBounds(plans_bytes=200_000))
    await write(log, 10_000)
    assert (await log.state()).first == 1


async def test_a_full_audit_trail_forgets_its_oldest_entries(connect: Open) -> None:
    log = await connect(StreamBounds(audit_bytes=100_000))
    for number in range(20):
        subject = f"audit.execution_failed.p.t{number}"
        entry = TrailEntry(id=f"e{number}", event="e", subject=subject, payload=b"x" * 10_000)
        assert await log.trail.write([entry]) == [number + 1]
    extent = await log.trail.extent()
    assert extent.first > 1
    assert extent.head == 20


ACCOUNT = """
accounts {{
  A {{ jetstream: {{ max_file: {max_file} }}, users: [ {{ user: a, password: a }} ] }}
}}
no_auth_user: a
"""


@pytest.fixture
def small_account(
    start_nats: Callable[[Path], PrivateServer], tmp_path: Path
) -> Callable[[int], PrivateServer]:
    def start(max_file: int) -> PrivateServer:
        base = (Path(__file__).parents[2] / "nats.conf").read_text(encoding="utf-8")
        path = tmp_path / "small.conf"
        path.write_text(base + ACCOUNT.format(max_file=max_file), encoding="utf-8")
        return start_nats(path)

    return start


async def test_with_an_external_server_the_limit_of_the_account_counts(
    small_account: Callable[[int], PrivateServer],
) -> None:
    url = small_account(100 * MIB).url
    bounds = StreamBounds(plans_share=0.5, audit_bytes=1024 * MIB)
    await (await JetStreamLog.connect(url, bounds=bounds)).close()
    assert await bounds_at(url) == (50 * MIB, 10 * MIB)


async def test_where_others_have_reserved_the_room_only_a_bound_that_was_given_stops_the_start(
    small_account: Callable[[int], PrivateServer],
) -> None:
    url = small_account(100 * MIB).url
    other = {"name": "OTHER", "subjects": ["other"], "max_bytes": 95 * MIB, "storage": "file"}
    await api(url, "STREAM.CREATE.OTHER", other)
    given = StreamBounds(plans_bytes=10 * MIB)
    with pytest.raises(LogUnavailable, match=r"insufficient|exceeded"):
        await JetStreamLog.connect(url, bounds=given, connect_timeout_s=1)
    by_share = StreamBounds(plans_share=0.5, audit_bytes=1024 * MIB)
    await (await JetStreamLog.connect(url, bounds=by_share)).close()
    assert await bounds_at(url) == (-1, -1)


async def test_our_bound_is_written_down_beside_it(
    connect: Open, private_nats: PrivateServer
) -> None:
    await connect(DISK)
    config = (await api(private_nats.url, "STREAM.INFO.PLANS"))["config"]
    assert config["metadata"][MARK] == str(config["max_bytes"])
