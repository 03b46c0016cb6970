"""A tail goes on past restarts, losses and slow readers, and ends with its stream."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from streams.jetstream.consumer import PULL_MESSAGES, parse_reply
from streams.jetstream.drafts import BATCH_MESSAGES
from streams.jetstream.log import JetStreamLog
from streams.jetstream.messages import Delivery
from streams.jetstream.tail import PULLS as TAIL_PULLS
from streams.jetstream.tail import SILENCE_S
from streams.log import (
    Appended,
    LogReset,
)
from streams.plan.events import Completed, Raw
from tests.conftest import PrivateServer
from tests.contract.drafts import STARTED, all_of, on_plan, on_task, tail, won
from tests.contract.jetstream.world import (
    LIMITS,
    Open,
)
from tests.contract.wire import PassOn, Wire, ask
from tests.waiting import eventually


async def consumers(server: PrivateServer) -> list[str]:
    answer = await ask(server.url, "CONSUMER.NAMES.PLANS")
    return msgspec.json.decode(answer)["consumers"] or []


# Following.


async def test_a_tail_goes_on_across_restarts_of_the_server(
    connect: Open, private_nats: PrivateServer
) -> None:
    # On a busy machine the client may need a while to come back.
    log = await connect(private_nats, limits=replace(LIMITS, grace_s=15))
    # Less than the silence after which a tail would start anew of its own accord.
    following = asyncio.ensure_future(tail(log, 0, 400, within_s=SILENCE_S - 1))
    for start in range(0, 400, 100):
        outcomes = await all_of(log, *(on_task(f"t{i}") for i in range(start, start + 100)))
        assert all(isinstance(outcome, Appended) for outcome in outcomes)
        if start < 300:
            private_nats.kill()
            await asyncio.to_thread(private_nats.restart)
    assert [fact.sequence for fact in await following] == list(range(1, 401))
    assert log.reconnects == 3


async def test_a_tail_whose_consumer_is_deleted_makes_another(
    log: JetStreamLog, private_nats: PrivateServer
) -> None:
    following = asyncio.ensure_future(tail(log, 0, 11))
    await all_of(log, *(on_task(f"t{i}") for i in range(10)))
    async with asyncio.timeout(20):
        while not (names := await consumers(private_nats)):
            await asyncio.sleep(0.01)
    await ask(private_nats.url, f"CONSUMER.DELETE.PLANS.{names[0]}")
    await eventually(lambda: log.new_consumers >= 1)
    await won(log, on_task("late"))
    assert [fact.sequence for fact in await following] == list(range(1, 12))


async def test_a_tail_asks_for_more_before_all_that_has_come_is_taken(
    log: JetStreamLog, wire: Wire
) -> None:
    """Else it waits for the server whenever it has taken all."""
    ahead = TAIL_PULLS * PULL_MESSAGES  # what may have come and is not taken
    for n in range(-(-(ahead + PULL_MESSAGES) // BATCH_MESSAGES)):
        await won(log, on_task(f"t{n}", 0, *([STARTED] * BATCH_MESSAGES)))
    came = taken = 0

    def counted(deliver: PassOn, message: Delivery) -> None:
        nonlocal came
        came += message[1].startswith(b"$JS.ACK.")
        deliver(*message)

    wire.consuming = counted
    async with aclosing(log.follow(0)) as batches:  # type: ignore[type-var]
        async for batch in batches:
            taken += len(batch)
            await eventually(lambda: came >= ahead)
            if taken >= PULL_MESSAGES:
                break
        await eventually(lambda: came >= ahead + PULL_MESSAGES)
        assert came <= ahead + taken


async def test_a_message_lost_on_the_way_is_noticed_and_read_again(
    log: JetStreamLog, wire: Wire
) -> None:
    count = 0

    def lossy(deliver: PassOn, message: Delivery) -> None:
        nonlocal count
        count += 1
        if count not in {7, 150}:
            deliver(*message)

    wire.consuming = lossy
    await all_of(log, *(on_task(f"t{i}") for i in range(100)))
    assert [fact.sequence for fact in await tail(log, 0, 100)] == list(range(1, 101))
    assert log.new_consumers >= 1


async def test_a_tail_that_is_read_slowly_loses_nothing(log: JetStreamLog) -> None:
    await all_of(log, *(on_task(f"t{i}", 0, *[STARTED] * 100) for i in range(120)))
    seen: list[int] = []
    async with aclosing(log.follow(0)) as batches:  # type: ignore[type-var]
        async for batch in batches:
            seen += [fact.sequence for fact in batch]
            await log.state()  # long enough for everything outstanding to arrive
            if seen[-1] == 12_000:
                break
    assert seen == list(range(1, 12_001))
    assert log.new_consumers == 0


async def test_large_facts_pass_through_the_tail(log: JetStreamLog) -> None:
    large = Completed(owner="w", attempt=1, output=Raw(b'"' + b"x" * 1_500_000 + b'"'))
    for i in range(24):
        await won(log, on_task(f"t{i}", 0, large))
    assert len(await tail(log, 0, 24)) == 24
    assert log.new_consumers == 0
    assert len(await log.read("p")) == 24


async def test_closing_a_tail_leaves_no_consumer_behind(
    log: JetStreamLog, private_nats: PrivateServer
) -> None:
    await won(log, on_plan("p"))
    await tail(log, 0, 1)
    async with asyncio.timeout(20):
        while await consumers(private_nats):
            await asyncio.sleep(0.01)


async def test_a_stream_that_is_gone_ends_the_tail(
    log: JetStreamLog, private_nats: PrivateServer
) -> None:
    await won(log, on_plan("p"))
    async with aclosing(log.follow(0)) as batches:  # type: ignore[type-var]
        await anext(batches)
        coming = asyncio.ensure_future(anext(batches))
        await ask(private_nats.url, "STREAM.DELETE.PLANS")
        with pytest.raises(LogReset):
            await asyncio.wait_for(coming, 20)


async def test_the_tail_works_with_the_coming_form_of_reply_subjects(
    start_nats: Callable[..., PrivateServer], connect: Open, tmp_path: Path
) -> None:
    configuration = tmp_path / "flagged.conf"
    configuration.write_text(
        "host: 127.0.0.1\nfeature_flags { js_ack_fc_v2: true }\njetstream { sync_interval: 1s }\n"
    )
    log = await connect(start_nats(configuration))
    await all_of(log, *(on_task(f"t{i}") for i in range(50)))
    assert [fact.sequence for fact in await tail(log, 0, 50)] == list(range(1, 51))
    assert await log.read("p") == await tail(log, 0, 50)


def test_positions_are_found_in_every_form_of_reply_subject() -> None:
    for reply in (
        b"$JS.ACK.PLANS.tail-1.1.42.7.1700000000123456789.3",
        b"$JS.ACK._.hash.PLANS.tail-1.1.42.7.1700000000123456789.3",
        b"$JS.ACK.hub.hash.PLANS.tail-1.1.42.7.1700000000123456789.3.random",
    ):
        assert parse_reply(reply) == (42, 7, 1700000000123456789, b"3")
