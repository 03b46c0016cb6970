"""What the stream says about itself is true: `caught_up`, `gap`, and the ids that move cursors."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import nats
import pytest
from httpx_sse import ServerSentEvent

from service.app import Instance
from streams.plan.events import Claimed, Submitted, TaskSpec
from tests.conftest import PrivateServer
from tests.faults.log_witness import read_messages
from tests.faults.sse_client import ask, begun
from tests.faults.sse_fleet import Journey, Wish
from tests.faults.sse_load import Writer
from tests.integration.sse_world import Stream, serving, write

SUBMITTED = Submitted(tasks=(TaskSpec(id="t", kind="outside"),))


@pytest.fixture
async def instance(private_nats: PrivateServer, tmp_path: Path) -> AsyncIterator[Instance]:
    async with serving(private_nats.url, tmp_path / "one", buffer_events=30) as instance:
        yield instance


async def filled(instance: Instance, events: int, plan_id: str = "busy") -> Writer:
    """A log with exactly so many events of one plan, folded."""
    writer = Writer(instance.core.log, plan_id)
    await writer.begin()
    await instance.core.folded(await writer.write(events - 2))
    return writer


async def purge(nats_url: str, first: int) -> None:
    """Remove everything before ``first``, as an operator with the `nats` command would."""
    connection = await nats.connect(nats_url, allow_reconnect=False)
    await connection.jetstream().purge_stream("PLANS", seq=first)
    await connection.close()


async def wipe(nats_url: str) -> None:
    """Delete the log."""
    connection = await nats.connect(nats_url, allow_reconnect=False)
    await connection.jetstream().delete_stream("PLANS")
    await connection.close()


def names(events: list[ServerSentEvent]) -> list[str]:
    return [event.event for event in events if "." not in event.event]


def sequences(events: list[ServerSentEvent]) -> list[int]:
    return [event.json()["sequence"] for event in events if "." in event.event]


async def opening(instance: Instance, cursor: int, path: str = "/v1/events"):  # noqa: ANN201
    """Everything that a client with this cursor is sent up to its `caught_up`."""
    asked = {"headers": {"Last-Event-ID": str(cursor)}}
    async with Stream(instance.http_url, path, **asked) as stream:
        return await stream.until("caught_up")


# -- caught_up ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
async def test_caught_up_comes_after_all_that_was_there_whatever_is_written_meanwhile(
    instance: Instance, private_nats: PrivateServer, seed: int
) -> None:
    """Clients of any interest, behind by any distance, arrive while the log grows under them."""
    luck = random.Random(seed)
    writer = await filled(instance, 50)
    other = await filled(instance, 3, "other")
    wishes = [
        Wish(), Wish(plan_id="busy"), Wish(plan_id="other"), Wish(plan_id="busy", own=True),
        Wish(types=frozenset({"plan.submitted"})), Wish(task_id="t"),
    ]  # fmt: skip
    over = asyncio.Event()

    async def write_on() -> None:
        while not over.is_set():
            await writer.write(luck.randint(1, 40))
            if luck.random() < 0.3:
                await other.write(1)

    async def arrive(number: int) -> Journey:
        dice = random.Random(seed * 1000 + number)
        await asyncio.sleep(dice.uniform(0, 1))
        head = instance.core.board.sequence
        first = dice.choice((None, 0, head, dice.randint(0, head), max(head - 35, 0)))
        wish = msgspec.structs.replace(dice.choice(wishes), first=first)
        journey = Journey(wish)
        connection = await ask(instance.http_url, wish.path, journey.story, cursor=first)
        assert await begun(connection) == 200
        async with asyncio.timeout(20):
            await connection.caught_up.wait()
        assert connection.greeting is not None
        assert connection.caught_up_at is not None
        journey.heads.append((connection.greeting.data["head"], connection.caught_up_at))
        connection.hang_up("close")
        return journey

    writing = asyncio.create_task(write_on())
    journeys = await asyncio.gather(*(arrive(number) for number in range(80)))
    over.set()
    await writing
    log = await read_messages(private_nats.url)
    for journey in journeys:
        seen = journey.story.sequences
        due = [message for message in journey.due(log) if seen and message.sequence <= seen[-1]]
        assert seen == [message.sequence for message in due], journey.wish
        (head, count) = journey.heads[0]
        before = [message for message in journey.due(log) if message.sequence <= head]
        assert len(before) <= count, f"{journey.wish} got its caught_up too early"
    heads = {journey.heads[0][0] for journey in journeys}
    assert len(heads) > 3, "hardly anything was written meanwhile"


# -- gap: expired -------------------------------------------------------------------------------


@pytest.mark.parametrize("cursor", [1, 8, 18])
async def test_an_expired_cursor_gets_a_gap_and_goes_on_from_what_exists(
    instance: Instance, private_nats: PrivateServer, cursor: int
) -> None:
    await filled(instance, 60)
    await purge(private_nats.url, 20)
    told = await opening(instance, cursor)
    assert names(told) == ["hello", "gap", "caught_up"]
    gap = {"requested": cursor, "first": 20, "head": 60, "reason": "expired"}
    assert told[1].json() == gap
    assert sequences(told) == list(range(20, 61))
    # It is the gap that moves the cursor: one cut off before it gets it again, one after it not.
    assert (told[0].id, told[1].id) == ("", "19")
    assert names(await opening(instance, 19)) == ["hello", "caught_up"]


@pytest.mark.parametrize(("cursor", "first_seen"), [(0, 20), (19, 20), (20, 21), (45, 46)])
async def test_a_cursor_of_which_nothing_was_removed_is_no_gap(
    instance: Instance, private_nats: PrivateServer, cursor: int, first_seen: int
) -> None:
    await filled(instance, 60)
    await purge(private_nats.url, 20)
    told = await opening(instance, cursor)
    assert names(told) == ["hello", "caught_up"]
    assert sequences(told) == list(range(first_seen, 61))


async def test_a_log_that_was_emptied_goes_on_where_it_was(
    instance: Instance, private_nats: PrivateServer
) -> None:
    await filled(instance, 60)
    await purge(private_nats.url, 61)
    assert names(await opening(instance, 60)) == ["hello", "caught_up"]
    told = await opening(instance, 30)
    assert told[1].json() == {"requested": 30, "first": 61, "head": 60, "reason": "expired"}
    async with Stream(instance.http_url, "/v1/events", params={"after": "30"}) as stream:
        await stream.until("caught_up")
        await filled(instance, 3, "later")
        assert await stream.take(3) == [61, 62, 63]


# -- gap: ahead of the log ----------------------------------------------------------------------


async def test_a_cursor_ahead_of_the_log_starts_over_and_hides_nothing_later(
    instance: Instance,
) -> None:
    """Its client may be cut off at once and come back when the log has outgrown its old cursor."""
    writer = await filled(instance, 5)
    path = "/v1/events?types=plan.finished,task.progress"
    async with Stream(instance.http_url, path, headers={"Last-Event-ID": "40"}) as stream:
        told = [await stream.next(), await stream.next()]
    assert [event.event for event in told] == ["hello", "gap"]
    gap = {"requested": 40, "first": 1, "head": 5, "reason": "ahead_of_log"}
    assert (told[0].id, told[1].id, told[1].json()) == ("", "0", gap)
    await instance.core.folded(await writer.write(60))
    assert sequences(await opening(instance, int(told[1].id), path)) == list(range(3, 66))


async def test_a_cursor_of_a_wiped_log_gets_a_gap_and_another_epoch(
    private_nats: PrivateServer, tmp_path: Path
) -> None:
    async with serving(private_nats.url, tmp_path / "one") as instance:
        await filled(instance, 60)
        before = await opening(instance, 0)
    await wipe(private_nats.url)
    async with serving(private_nats.url, tmp_path / "one") as instance:
        told = await opening(instance, 60)
        assert told[1].json() == {
            "requested": 60, "first": 0, "head": 0, "reason": "ahead_of_log",
        }  # fmt: skip
        assert told[0].json()["epoch"] != before[0].json()["epoch"]
        await write(instance.core, "p", None, 0, SUBMITTED)
        await write(instance.core, "p", "t", 0, Claimed(owner="w", attempt=1, lease_s=600))
        after = await opening(instance, 60)
    assert names(after) == ["hello", "gap", "caught_up"]
    assert sequences(after) == [1, 2]


async def test_a_log_that_is_wiped_under_an_instance_is_never_mixed_with_the_new_one(
    private_nats: PrivateServer, tmp_path: Path
) -> None:
    """The instance ends; until then it answers 503, and nothing from its memory."""
    async with serving(private_nats.url, tmp_path / "one") as instance:
        await filled(instance, 60)
        async with Stream(instance.http_url, "/v1/events") as live:
            await live.until("caught_up")
            await wipe(private_nats.url)
            async with httpx.AsyncClient(base_url=instance.http_url) as client:
                answer = await client.get("/v1/events", params={"after": "0"})
            assert (answer.status_code, answer.json()["code"]) == (503, "log_unavailable")
            async with asyncio.timeout(20):
                reason = await instance.died
            assert "LogReset" in reason
    async with serving(private_nats.url, tmp_path / "one") as instance:
        await filled(instance, 3)
        assert sequences(await opening(instance, 60)) == [1, 2, 3]
