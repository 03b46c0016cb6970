"""Reading the log in pages, as a client that resumes does."""

import pytest

from streams.codec import decode, split_headers
from streams.log import BadFact, Fact, Log, LogMessage
from streams.plan.events import Finished, Paused
from tests.contract.conftest import World
from tests.contract.drafts import PAUSED, STARTED, on_plan, on_task, won


@pytest.fixture
async def filled(log: Log) -> Log:
    """Two plans: p at 1, 3, 4, 6, 8 and q at 2, 5, 7."""
    await won(log, on_plan("p"))
    await won(log, on_plan("q"))
    await won(log, on_task("a", plan_id="p"))
    await won(log, on_task("b", plan_id="p"))
    await won(log, on_task("a", plan_id="q"))
    await won(log, on_task("a", 3, STARTED, plan_id="p"))
    await won(log, on_plan("q", 2, PAUSED))
    await won(log, on_plan("p", 1, PAUSED))
    return log


async def pages(log: Log, limit: int, plan_id: str | None = None) -> list[list[int]]:
    found: list[list[int]] = []
    after = 0
    while page := await log.scan(after, limit, plan_id):
        found.append([fact.sequence for fact in page])
        after = found[-1][-1]
    return found


async def test_a_scan_goes_through_the_log_page_by_page(filled: Log) -> None:
    assert await pages(filled, 3) == [[1, 2, 3], [4, 5, 6], [7, 8]]
    assert await pages(filled, 100) == [[1, 2, 3, 4, 5, 6, 7, 8]]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6])
async def test_a_scan_of_a_plan_merges_its_own_facts_with_its_tasks(
    filled: Log, limit: int
) -> None:
    found = await pages(filled, limit, "p")
    assert [sequence for page in found for sequence in page] == [1, 3, 4, 6, 8]
    assert all(len(page) <= limit for page in found)


async def test_a_scan_begins_after_the_given_sequence(filled: Log) -> None:
    assert [fact.sequence for fact in await filled.scan(4, 10)] == [5, 6, 7, 8]
    assert [fact.sequence for fact in await filled.scan(4, 10, "q")] == [5, 7]
    assert await filled.scan(8, 10) == await filled.scan(8, 10, "p") == []
    assert await filled.scan(0, 10, "nobody") == []


async def test_a_scan_shows_what_cannot_be_read(world: World) -> None:
    await won(world.log, on_plan("p"))
    await world.publish("plans.p.t", b"{", {})
    facts = await world.log.scan(0, 10, "p")
    assert [type(fact) for fact in facts] == [Fact, BadFact]


async def test_the_last_of_a_plan_is_the_last_fact_of_its_own(log: Log) -> None:
    assert await log.last_of("p") is None
    await won(log, on_plan("p", 0))
    await won(log, on_task("a", plan_id="p"))
    await won(log, on_plan("p", 1, PAUSED, Finished(status="CANCELLED")))
    await won(log, on_plan("q", 0))
    last = await log.last_of("p")
    assert isinstance(last, Fact)
    assert (last.sequence, last.event) == (4, Finished(status="CANCELLED"))
    assert last.at == (await log.scan(3, 1))[0].at
    assert isinstance((await log.scan(2, 1))[0].event, Paused)  # type: ignore[union-attr]


@pytest.mark.parametrize("limit", [2, 100])
async def test_the_messages_of_a_plan_are_its_facts_as_they_are_stored(
    world: World, limit: int
) -> None:
    await won(world.log, on_plan("p"))
    await won(world.log, on_plan("q"))
    await won(world.log, on_task("a", plan_id="p"))
    await world.publish("plans.p.t", b"{", {"Own": "kept"})

    found = list[LogMessage]()
    while page := await world.log.messages("p", found[-1].sequence if found else 0, limit):
        assert len(page) <= limit
        found += page

    decoded = [decode(m.sequence, m.at, m.subject, m.headers, m.payload) for m in found]
    assert decoded == await world.log.scan(0, 10, "p")
    assert found[-1].payload == b"{"
    assert split_headers(found[-1].headers)[b"Own"] == b"kept"
