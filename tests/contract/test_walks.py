"""Reading on through the log: the same facts as ever, whatever happens to what fetches ahead."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest

from streams.jetstream.drafts import AppenderLimits
from streams.jetstream.leadership import Patience
from streams.jetstream.log import JetStreamLog
from streams.jetstream.messages import Delivery
from streams.jetstream.read_ahead import MAX_WALKS
from streams.log import Fact, Log, LogUnavailable
from streams.plan.events import Completed, Heartbeat, Raw
from tests.conftest import PrivateServer
from tests.contract.conftest import World
from tests.contract.drafts import STARTED, on_plan, on_task, tail, won
from tests.contract.wire import PassOn, Wire, ask

LIMITS = AppenderLimits(budget_s=15, try_s=0.3, grace_s=0.5, chatter_ttl_s=1)
PAGE = 150


async def fill(log: Log, plans: int = 3, tasks: int = 5) -> int:
    """So many plans, their tasks mingled, with 100 facts each; the log's head."""
    await asyncio.gather(*(won(log, on_plan(f"p{plan}")) for plan in range(plans)))
    last = await asyncio.gather(*(
        won(log, on_task(f"t{task}", 0, *([STARTED] * 100), plan_id=f"p{plan}"))
        for plan in range(plans) for task in range(tasks)
    ))  # fmt: skip
    return max(last)


async def read_on(log: Log, plan_id: str | None = None, *, limit: int = PAGE) -> list[Fact]:
    """The log page by page, to its end; while it does not answer, again."""
    found: list[Fact] = []
    async with asyncio.timeout(20):
        while True:
            try:
                page = await log.scan(found[-1].sequence if found else 0, limit, plan_id)
            except LogUnavailable:
                await asyncio.sleep(0.02)
                continue
            assert len(page) <= limit
            if not page:
                return found
            found += page  # type: ignore[arg-type]


@pytest.fixture
def patience() -> Patience:
    return Patience()


@pytest.fixture
async def jetstream(
    private_nats: PrivateServer, wire: Wire, patience: Patience
) -> AsyncIterator[JetStreamLog]:
    del wire  # it sees all that the log sends
    log = await JetStreamLog.connect(private_nats.url, limits=LIMITS, patience=patience)
    yield log
    await log.close()


async def consumers(server: PrivateServer) -> list[str]:
    """The walks that are open, as the server names them; a tail would have one too."""
    answer = await ask(server.url, "CONSUMER.NAMES.PLANS")
    return msgspec.json.decode(answer)["consumers"] or []


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    try:
        async with asyncio.timeout(20):
            while not await condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(what) from None


# On both logs.


async def test_reading_on_brings_what_following_brings(world: World) -> None:
    head = await fill(world.log)
    assert await read_on(world.log) == await tail(world.log, 0, head)


async def test_reading_on_along_a_plan_brings_what_reading_it_brings(world: World) -> None:
    await fill(world.log, tasks=11)  # a plan of more than one page
    for plan_id in ("p0", "p2"):
        assert await read_on(world.log, plan_id) == await world.log.read(plan_id)


async def test_what_is_written_while_one_reads_on_is_not_missed(world: World) -> None:
    await fill(world.log)
    first = await world.log.scan(0, PAGE)
    second = await world.log.scan(first[-1].sequence, PAGE)
    late = await won(world.log, on_task("late", plan_id="p1"))
    found = [*first, *second]
    while page := await world.log.scan(found[-1].sequence, PAGE):
        found += page
    assert [fact.sequence for fact in found] == list(range(1, late + 1))


# On the real one.


async def test_only_the_first_page_is_a_direct_get(jetstream: JetStreamLog, wire: Wire) -> None:
    head = await fill(jetstream)
    assert len(await read_on(jetstream)) == head
    assert wire.pages_from == [1, head + 1]  # the last one asks the leader as well


async def test_a_message_lost_on_the_way_is_read_again(jetstream: JetStreamLog, wire: Wire) -> None:
    head = await fill(jetstream)
    count = 0

    def lossy(deliver: PassOn, message: Delivery) -> None:
        nonlocal count
        count += 1
        if count not in {7, 500}:
            deliver(*message)

    wire.consuming = lossy
    assert [fact.sequence for fact in await read_on(jetstream)] == list(range(1, head + 1))
    assert PAGE + 7 in wire.pages_from


async def test_a_walk_whose_consumer_is_deleted_is_no_loss(
    jetstream: JetStreamLog, private_nats: PrivateServer
) -> None:
    head = await fill(jetstream, plans=30)
    page = await jetstream.scan(0, PAGE)
    await until(lambda: _any(consumers(private_nats)), "a walk begins")
    (name,) = await consumers(private_nats)
    await ask(private_nats.url, f"CONSUMER.DELETE.PLANS.{name}")
    while page[-1].sequence < head:
        page += await jetstream.scan(page[-1].sequence, PAGE)
    assert [fact.sequence for fact in page] == list(range(1, head + 1))


async def test_reading_on_survives_a_killed_server(
    jetstream: JetStreamLog, private_nats: PrivateServer
) -> None:
    head = await fill(jetstream, plans=10)
    reading = asyncio.ensure_future(read_on(jetstream, limit=100))
    for _ in range(2):
        await until(lambda: _any(_under_way(private_nats, reading)), "a walk is under way")
        private_nats.kill()
        await asyncio.to_thread(private_nats.restart)
    assert [fact.sequence for fact in await reading] == list(range(1, head + 1))


@pytest.mark.parametrize("patience", [Patience(silence_s=0.05)])
async def test_a_silent_server_does_not_hold_a_walk_for_ever(
    jetstream: JetStreamLog, wire: Wire
) -> None:
    head = await fill(jetstream)
    wire.consuming = lambda *_: None
    assert [fact.sequence for fact in await read_on(jetstream)] == list(range(1, head + 1))


async def test_messages_that_expired_are_passed(jetstream: JetStreamLog) -> None:
    beat = Heartbeat(owner="w", attempt=1, lease_s=15)
    expected = await won(jetstream, on_task("t"))
    for _ in range(3):
        expected = await won(jetstream, on_task("t", expected, *([STARTED] * 99), beat))
    kept = [fact for fact in await jetstream.read("p") if not isinstance(fact.event, Heartbeat)]  # type: ignore[union-attr]
    await won(jetstream, on_task("t2"))

    async def expired() -> bool:
        return len(await jetstream.read("p", "t")) == len(kept)

    await until(expired, "the heartbeats are gone")
    found = await read_on(jetstream, limit=100)
    assert [fact.sequence for fact in found] == [*(fact.sequence for fact in kept), 302]


@pytest.mark.parametrize("patience", [Patience(unused_s=0.5)])
async def test_walks_are_few_and_end_when_they_are_no_longer_used(
    jetstream: JetStreamLog, private_nats: PrivateServer
) -> None:
    await fill(jetstream, plans=12, tasks=3)
    await asyncio.gather(*(jetstream.scan(after, 100) for after in range(12)))
    assert 0 < len(await consumers(private_nats)) <= MAX_WALKS
    await until(lambda: _none(consumers(private_nats)), "no longer used, they end")
    await until(lambda: _true(not walking()), "and no task stays")


def walking() -> list[str]:
    names = (task.get_name() for task in asyncio.all_tasks())
    return [name for name in names if name.startswith("log walk")]


@pytest.mark.parametrize("patience", [Patience(unused_s=0.5)])
async def test_a_walk_that_was_in_use_when_checked_is_checked_again(
    jetstream: JetStreamLog, private_nats: PrivateServer
) -> None:
    """No other walk begins, and its own end has to be noticed all the same."""
    await fill(jetstream)
    after = (await jetstream.scan(0, PAGE))[-1].sequence
    now = asyncio.get_running_loop().time
    checked_at = now() + 0.6
    while now() < checked_at:
        (fact,) = await jetstream.scan(after, 1)
        after = fact.sequence
        await asyncio.sleep(0.005)
    assert len(await consumers(private_nats)) == 1, "it was in use"
    await until(lambda: _none(consumers(private_nats)), "no longer used, it ends")


async def test_closing_the_log_leaves_no_walk_behind(private_nats: PrivateServer) -> None:
    log = await JetStreamLog.connect(private_nats.url)
    await fill(log)
    await log.scan(0, PAGE)
    await until(lambda: _any(consumers(private_nats)), "a walk begins")
    await log.close()
    await until(lambda: _none(consumers(private_nats)), "the consumer is gone")


async def test_large_facts_pass_through_a_walk(jetstream: JetStreamLog) -> None:
    large = Completed(owner="w", attempt=1, output=Raw(b'"' + b"x" * 1_500_000 + b'"'))
    head = await fill(jetstream, plans=2)
    for number in range(12):
        await won(jetstream, on_task(f"l{number}", 0, large))
    found = await read_on(jetstream, limit=100)
    assert [fact.sequence for fact in found] == list(range(1, head + 13))


async def _under_way(server: PrivateServer, reading: asyncio.Future[list[Fact]]) -> list[str]:
    return ["done"] if reading.done() else await consumers(server)


async def _any(names: Awaitable[list[str]]) -> bool:
    return bool(await names)


async def _none(names: Awaitable[list[str]]) -> bool:
    return not await names


async def _true(value: object) -> bool:
    return bool(value)
