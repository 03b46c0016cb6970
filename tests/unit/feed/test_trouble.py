"""Slow and vanished clients, and a log that does not answer."""

import asyncio
import random

import pytest

from projections.feed.limits import FeedLimits
from streams.log import LogUnavailable
from tests.unit.feed.two_plans import two_plans
from tests.unit.feed.world import (
    Watcher,
    World,
    running,
    until,
)

# -- trouble ----------------------------------------------------------------------------------


async def test_a_client_that_takes_no_bytes_is_ended_and_the_others_are_not() -> None:
    world = await two_plans(FeedLimits(slow_s=0.02))
    _, frozen = await world.connect()
    _, healthy = await world.connect()
    both = (frozen, healthy)
    await until(lambda: all("caught_up" in watcher.signals for watcher in both), "both are live")
    frozen.frozen = True
    async with running(world):
        world.claims(10)
        await world.publish()
        await until(lambda: frozen.ended, "the end of the frozen one")
        writes = frozen.writes
        world.claims(10)
        await world.publish()
        await until(lambda: len(healthy.events) == 20, "delivery")
    assert frozen.writes == writes
    assert frozen.blocks[-1].data == {"reason": "slow_consumer"}
    assert world.meter["agent.sse.push.fail.total slow_consumer"] == 1


async def test_a_slow_client_comes_back_without_loss(world: World) -> None:
    luck, last = random.Random(1), 0
    _, slow = await world.connect(Watcher(lambda: luck.choice((0, 3, 20))))
    async with running(world):
        for _ in range(50):
            last = world.claims(4)
            await world.publish()
            await asyncio.sleep(0)
        await until(lambda: slow.sequences[-1:] == [last], "the last event")
    assert slow.sequences == list(range(6, last + 1))


@pytest.mark.parametrize("limits", [FeedLimits(pending_events=3), FeedLimits(pending_bytes=2_000)])
async def test_clients_fetch_themselves_what_is_too_much_for_their_channel(
    limits: FeedLimits,
) -> None:
    world = await two_plans(limits)
    _, watcher = await world.connect()
    await until(lambda: "caught_up" in watcher.signals, "caught up")
    last = world.claims(30)
    await world.publish()  # and no loop fans out
    await until(lambda: watcher.sequences[-1:] == [last], "the last event")
    assert watcher.sequences == list(range(6, last + 1))


async def test_a_client_that_has_gone_is_noticed_at_the_next_write(world: World) -> None:
    client, watcher = await world.connect()
    await until(lambda: "caught_up" in watcher.signals, "caught up")
    watcher.gone = True
    async with running(world):
        world.claims(1)
        await world.publish()
        await until(lambda: not client.open, "the end")
    assert world.meter["agent.sse.push.fail.total disconnected"] == 1
    world.feed.leave(client)
    assert world.meter["agent.sse.connections.current"] == 0


async def test_a_log_that_does_not_answer_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(FeedLimits(log_retry_s=0), buffer_events=1)
    world.claims(10)
    await world.publish()
    answers = iter([LogUnavailable("no"), LogUnavailable("no")])
    scan = world.log.scan

    async def fails_twice(*asked: object) -> object:
        for error in answers:
            raise error
        return await scan(*asked)  # type: ignore[arg-type]

    monkeypatch.setattr(world.log, "scan", fails_twice)
    _, watcher = await world.connect(cursor=0)
    await until(lambda: "caught_up" in watcher.signals, "caught up")
    assert watcher.sequences == list(range(1, 11))


async def test_a_read_that_began_before_a_client_came_does_not_take_it_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(buffer_events=1, replay_batch_size=100)
    world.claims(3)
    held, scan = asyncio.Event(), world.log.scan

    async def slow(*asked: object) -> object:
        facts = await scan(*asked)  # type: ignore[arg-type]
        await held.wait()
        return facts

    monkeypatch.setattr(world.log, "scan", slow)
    _, early = await world.connect(cursor=0)
    for _ in range(10):
        await asyncio.sleep(0)
    world.claims(2)
    _, late = await world.connect(cursor=4)
    for _ in range(10):
        await asyncio.sleep(0)
    held.set()
    await until(lambda: "caught_up" in late.signals, "caught up")
    assert late.sequences == [5]
    assert early.sequences[:3] == [1, 2, 3]


async def test_many_that_resume_together_share_the_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(buffer_events=10, replay_batch_size=50)
    world.claims(500)
    await world.publish()
    reads: list[object] = []
    scan = world.log.scan

    async def counted(*asked: object) -> object:
        reads.append(asked)
        return await scan(*asked)  # type: ignore[arg-type]

    monkeypatch.setattr(world.log, "scan", counted)
    pairs = [await world.connect(cursor=number % 10) for number in range(100)]
    await until(lambda: all(client.caught_up for client, _ in pairs), "all caught up")
    assert all(w.sequences == list(range(1 + n % 10, 501)) for n, (_, w) in enumerate(pairs))
    assert len(reads) <= 20
    # What is measured are the reads, however many share one.
    metered = ["batch.total", "hit.total", "duration observations"]
    assert {world.meter[f"agent.sse.replay.{each}"] for each in metered} == {len(reads)}
    assert 490 <= world.meter["agent.sse.replay.events.total"] <= len(reads) * 50
    assert world.meter["agent.sse.push.attempt.total"] == sum(len(w.events) for _, w in pairs)
