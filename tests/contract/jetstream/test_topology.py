"""The streams as they are found: ours, changed by another hand, or with more than is needed."""

import msgspec
import pytest

from streams.jetstream.log import JetStreamLog
from streams.log import (
    Conflict,
    TopologyMismatch,
)
from tests.conftest import PrivateServer
from tests.contract.drafts import on_plan, won
from tests.contract.jetstream.world import Open
from tests.contract.wire import ask

# The streams.


async def test_a_second_instance_finds_the_same_streams(
    connect: Open, private_nats: PrivateServer
) -> None:
    first = await connect(private_nats)
    second = await connect(private_nats)
    await won(first, on_plan("p"))
    mine, theirs = await first.state(), await second.state()
    assert (mine.epoch, mine.head) == (theirs.epoch, theirs.head)
    assert await second.append(on_plan("p")) == Conflict(1)


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("deny_delete", False, "deny_delete is false, wanted true"),
        ("allow_atomic", False, "allow_atomic is unset"),
        ("allow_direct", False, "allow_direct is false"),
        ("discard", "old", 'discard is "old", wanted "new"'),
        ("storage", "memory", 'storage is "memory", wanted "file"'),
        ("max_age", 3_600_000_000_000, "max_age is 3600000000000, wanted 0"),
        ("max_msgs_per_subject", 5, "max_msgs_per_subject is 5"),
        ("duplicate_window", 1_000_000_000, "duplicate_window is 1000000000"),
        ("subjects", ["plans.*"], 'subjects is ["plans.*"], wanted ["plans.>"]'),
    ],
)
async def test_a_stream_that_cannot_be_relied_on_is_refused(
    private_nats: PrivateServer, field: str, value: object, shown: str
) -> None:
    found = msgspec.json.decode(await ask(private_nats.url, "STREAM.INFO.PLANS"))["config"]
    await ask(private_nats.url, "STREAM.DELETE.PLANS")
    made = await ask(
        private_nats.url, "STREAM.CREATE.PLANS", msgspec.json.encode({**found, field: value})
    )
    assert b'"error"' not in made
    with pytest.raises(TopologyMismatch, match="stream PLANS") as refused:
        await JetStreamLog.connect(private_nats.url)
    assert shown in str(refused.value)
    assert "nats stream edit PLANS" in str(refused.value)


@pytest.mark.usefixtures("log")
async def test_a_stream_with_more_than_is_needed_is_accepted(
    connect: Open, private_nats: PrivateServer
) -> None:
    found = msgspec.json.decode(await ask(private_nats.url, "STREAM.INFO.PLANS"))["config"]
    more = {**found, "duplicate_window": 600_000_000_000, "description": "ours"}
    assert b'"error"' not in await ask(
        private_nats.url, "STREAM.UPDATE.PLANS", msgspec.json.encode(more)
    )
    assert (await connect(private_nats)).connected
