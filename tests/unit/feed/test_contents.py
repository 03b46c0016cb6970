"""What a stream carries: events as the contract says, filtered, and pings."""

import pytest
from msgspec import Raw

from projections.feed.entry import ALL_TYPES, PING, entries_of, render
from streams.log import Fact
from streams.plan.events import Completed, Progress
from tests.unit.feed.two_plans import names
from tests.unit.feed.world import (
    Watcher,
    World,
    blocks,
    running,
    until,
)

# -- what is carried --------------------------------------------------------------------------


async def test_an_event_looks_as_the_contract_says(world: World) -> None:
    _, watcher = await world.connect(cursor=2)
    await names(watcher, 3)
    event = watcher.events[0]
    at = event.data.pop("at")
    assert at.endswith("Z")
    assert "T" in at
    assert event.id == 3
    assert event.data == {
        "sequence": 3,
        "plan_id": "p",
        "task_id": "a",
        "type": "task.claimed",
        "trace_id": None,  # what was written by hand has none
        "data": {
            "owner": "w",
            "attempt": 1,
            "lease_s": 15.0,
            "lane": "ready",
            "previous_owner": None,
            "silent": False,
            "started": False,
            "timeout_s": None,
        },
    }


@pytest.mark.parametrize("raw", [b'{"a":\n1}', b'{"a":\r1}', b'[\r\n\r\n"x"]'])
def test_json_with_line_breaks_stays_one_line(raw: bytes) -> None:
    event = Completed(owner="w", attempt=1, output=Raw(raw))
    text = render(Fact(1, 0.0, "p", "a", event))
    assert text.count(b"\n") == 4
    assert b"\r" not in text
    assert blocks(text)[0].data["data"]["output"] in ({"a": 1}, ["x"])


def test_an_event_is_rendered_once() -> None:
    (entry,) = entries_of([Fact(1, 0.0, "p", "a", Progress(owner="w", attempt=1, data=Raw(b"1")))])
    assert entry.text() is entry.text()
    assert entry.fact is None


async def test_heartbeats_come_only_when_asked_for(world: World) -> None:
    _, without = await world.connect(cursor=0)
    _, asked = await world.connect(cursor=0, types=frozenset({"task.heartbeat"}))
    _, everything = await world.connect(cursor=0, types=frozenset(ALL_TYPES))
    for watcher in (without, asked, everything):
        await until(lambda: "caught_up" in watcher.signals, "caught up")  # noqa: B023
    assert without.sequences == [1, 2, 3, 5]
    assert asked.sequences == [4]
    assert everything.sequences == [1, 2, 3, 4, 5]


async def test_what_a_filter_left_out_still_moves_the_cursor(world: World) -> None:
    _, watcher = await world.connect(cursor=0, types=frozenset({"task.failed"}))
    assert await names(watcher, 2) == ["hello", "caught_up"]
    assert watcher.last_id == 5


async def test_clients_of_one_plan_get_the_same_bytes_in_one_write_each(world: World) -> None:
    pairs = [await world.connect(plan_id="p") for _ in range(5)]
    others = [await world.connect(plan_id="q") for _ in range(5)]
    await until(lambda: all("caught_up" in w.signals for _, w in pairs + others), "all are live")
    writes = [watcher.writes for _, watcher in others]
    world.claims(3)
    await world.publish()
    async with running(world):
        await until(lambda: all(len(w.events) == 3 for _, w in pairs), "delivery")
    assert [watcher.writes for _, watcher in others] == writes
    assert len({watcher.text.partition(b"caught_up")[2] for _, watcher in pairs}) == 1
    assert world.meter["agent.sse.push.attempt.total"] == 15


def pings(watcher: Watcher) -> int:
    return watcher.text.count(PING)


async def test_each_client_is_pinged_once_in_a_period() -> None:
    world = World(heartbeat_s=0.05)
    pairs = [await world.connect() for _ in range(60)]
    async with running(world):
        await until(lambda: all(pings(watcher) > 2 for _, watcher in pairs), "pings")
    assert max(pings(watcher) for _, watcher in pairs) <= 4
