"""The stream of audit entries: each is stored once, alone or in a batch."""

import msgspec
import nats
import pytest

from streams.jetstream.audit_stream import TrailEntry
from streams.jetstream.log import JetStreamLog
from streams.subjects import audit_subject
from tests.conftest import PrivateServer
from tests.contract.jetstream.world import Open
from tests.contract.wire import ask

MAX_PAYLOAD = 2 * 1024 * 1024  # of nats.conf


async def test_the_audit_trail_takes_what_happened_around_the_log(
    log: JetStreamLog, private_nats: PrivateServer
) -> None:
    client = await nats.connect(private_nats.url)
    heard = await client.subscribe("audit.claimed_update_guard_reject.>")
    # nats-py lets a PING overtake a SUB, so flush() proves nothing; a request keeps the order.
    await client.request("$JS.API.INFO", b"")
    assert await log.trail.write([trail_entry("1", "claimed_update_guard_reject")]) == [1]
    assert (await heard.next_msg(5)).subject == "audit.claimed_update_guard_reject.p.~"
    await client.close()
    with pytest.raises(ValueError, match="no audit entry"):
        trail_entry("2", "no.such")


def trail_entry(id: str, event: str = "execution_failed", payload: bytes = b"{}") -> TrailEntry:
    return TrailEntry(id=id, event=event, subject=audit_subject(event, "p", None), payload=payload)


async def audit_messages(server: PrivateServer) -> int:
    info = msgspec.json.decode(await ask(server.url, "STREAM.INFO.AUDIT"))
    return int(info["state"]["messages"])


@pytest.mark.parametrize("count", [3, 200])
async def test_an_audit_entry_that_is_written_again_is_stored_once(
    log: JetStreamLog, private_nats: PrivateServer, count: int
) -> None:
    entries = [trail_entry(f"e{n}") for n in range(count)]
    assert await log.trail.write(entries) == list(range(1, count + 1))
    assert await log.trail.write(entries) == list(range(1, count + 1))
    assert await audit_messages(private_nats) == count
    more = [trail_entry(f"e{n}") for n in range(count - 1, 2 * count)]
    assert await log.trail.write(more) == list(range(count, 2 * count + 1))
    assert await audit_messages(private_nats) == 2 * count
    kept = await log.trail.read(0, 3 * count)
    assert [(message.sequence, message.id) for message in kept] == [
        (n + 1, f"e{n}") for n in range(2 * count)
    ]
    assert await log.trail.read(1, 2) == kept[1:3]
    assert await log.trail.read(2 * count, 1) == []


async def test_an_audit_entry_that_is_too_large_takes_no_other_with_it(
    log: JetStreamLog, private_nats: PrivateServer
) -> None:
    entries = [trail_entry(f"e{n}") for n in range(20)]
    too_large = trail_entry("large", payload=b"x" * (MAX_PAYLOAD + 1))
    places = await log.trail.write([too_large, *entries])
    assert places == [None, *range(1, 21)]
    assert await audit_messages(private_nats) == 20


@pytest.mark.usefixtures("log")
async def test_an_audit_trail_of_an_older_holdfast_learns_to_take_batches(
    connect: Open, private_nats: PrivateServer
) -> None:
    found = msgspec.json.decode(await ask(private_nats.url, "STREAM.INFO.AUDIT"))["config"]
    await ask(private_nats.url, "STREAM.DELETE.AUDIT")
    older = {**found, "allow_atomic": False}
    assert b'"error"' not in await ask(
        private_nats.url, "STREAM.CREATE.AUDIT", msgspec.json.encode(older)
    )
    assert (await connect(private_nats)).connected
    now = msgspec.json.decode(await ask(private_nats.url, "STREAM.INFO.AUDIT"))["config"]
    assert now["allow_atomic"] is True
