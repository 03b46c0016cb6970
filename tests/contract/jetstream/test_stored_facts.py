"""How facts are stored, and when a server, an account or a stream is full."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from streams.jetstream.drafts import AppenderLimits
from streams.jetstream.log import JetStreamLog
from streams.log import (
    Appended,
    Conflict,
    LogFull,
)
from streams.plan.events import Completed, Heartbeat, Progress, Raw
from tests.conftest import PrivateServer
from tests.contract.drafts import STARTED, all_of, on_task, tail, won
from tests.contract.jetstream.world import (
    Open,
    stored,
)

# Bounds.

STORE = "jetstream { sync_interval: always, max_memory_store: 64MB, max_file_store: %s }\n"
ACCOUNT = """
accounts { A { jetstream: { max_file: 2MB, max_mem: 16MB }, users: [{ user: a, password: a }] } }
no_auth_user: a
"""


@pytest.mark.parametrize(
    ("limits", "code"), [(STORE % "2MB", "insufficient"), (STORE % "1GB" + ACCOUNT, "exceeded")]
)
async def test_a_server_or_an_account_that_is_full_is_a_full_log(
    connect: Open, start_nats: Callable[..., PrivateServer], tmp_path: Path, limits: str, code: str
) -> None:
    configuration = tmp_path / "bounded.conf"
    configuration.write_text(f"host: 127.0.0.1\nmax_payload: 2MB\n{limits}")
    log = await connect(start_nats(configuration))
    filler = Completed(owner="w1", attempt=1, output=Raw(b'"' + b"x" * 100_000 + b'"'))
    drafts = [on_task(f"t{i}", 0, filler) for i in range(40)]
    outcomes = await asyncio.gather(*map(log.append, drafts), return_exceptions=True)
    assert any(isinstance(outcome, Appended) for outcome in outcomes)
    with pytest.raises(LogFull, match=code):
        await log.append(on_task("more", 0, filler))


# How facts are stored.


async def test_only_chatter_carries_a_time_to_live(
    log: JetStreamLog, private_nats: PrivateServer
) -> None:
    beat = Heartbeat(owner="w1", attempt=1, lease_s=15)
    await won(log, on_task("t", 0, STARTED, beat, Progress(owner="w1", attempt=1)))
    replies = await stored(private_nats, "plans.p.t")
    limited = [b"Nats-TTL: 86400s" in reply.headers for reply in replies]
    assert limited == [False, True, True]


async def test_a_heartbeat_that_expired_shows_as_a_lower_sequence(
    connect: Open, private_nats: PrivateServer
) -> None:
    log = await connect(private_nats, limits=AppenderLimits(chatter_ttl_s=1))
    first = await won(log, on_task("t"))
    beat = await won(log, on_task("t", first, Heartbeat(owner="w1", attempt=1, lease_s=15)))
    async with asyncio.timeout(20):
        while len(await log.read("p", "t")) == 2:
            await asyncio.sleep(0.05)
    assert await log.append(on_task("t", beat, STARTED)) == Conflict(first)
    after = await won(log, on_task("t", first, STARTED))
    assert [fact.sequence for fact in await tail(log, 0, after)] == [first, after]


async def test_no_append_asks_for_the_last_message_id(
    log: JetStreamLog, private_nats: PrivateServer
) -> None:
    await all_of(log, *(on_task(f"t{i}") for i in range(50)))
    replies = await stored(private_nats, "plans.>")
    assert len(replies) == 50
    assert all(b"Last-Msg-Id" not in reply.headers for reply in replies)
    expected = b"Nats-Expected-Last-Subject-Sequence: 0\r\n"
    assert all(expected in reply.headers for reply in replies)
