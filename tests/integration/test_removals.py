"""What is removed of forgotten plans, in any order and with any crash, changes no view."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from projections.integrity.verify import compare
from projections.read_models.forgetting import to_remove
from service.daemons.removals import Removals
from streams.log import Appended, Draft
from streams.plan.events import Forgotten
from streams.plan.limits import FORGOTTEN_S
from tests.integration.removal_story import (
    EAGER,
    LIMITS,
    WAIT_S,
    MemoryPurger,
    Story,
    a_story,
    ended_plans,
    forgotten_plans,
)


@pytest.fixture
async def story() -> AsyncIterator[Story]:
    async with a_story() as (told, _):
        yield told


Step = Callable[[Story, int], Awaitable[object]]
OFTEN: list[Step] = [
    *(Story.begin, Story.beat, Story.end, Story.end, Story.forget, Story.forget),
    *(Story.one_more, Story.one_more, Story.later, Story.other_folds),
]
REMOVING: list[Step] = [Story.remove, Story.other_removes]
steps = st.tuples(
    st.sampled_from([*OFTEN, *OFTEN, Story.rubbish, *REMOVING, *REMOVING]), st.integers(0, 11)
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(chosen=st.lists(steps, min_size=20, max_size=80))
@pytest.mark.timeout(120)
def test_a_rebuild_equals_live_whatever_is_removed_and_wherever_it_stops(
    chosen: list[tuple[Step, int]],
) -> None:
    asyncio.run(tell(chosen))


async def tell(chosen: list[tuple[Step, int]]) -> None:
    async with a_story() as (story, folder):
        for step, which in chosen:
            await step(story, which)
            if step in REMOVING:
                assert await story.world.differences(folder) == []
        await story.other_folds()
        await story.world.flush()
        assert compare(folder / "a", folder / "b").differences == []
        # Nothing is left over for ever: what was forgotten goes within its time.
        story.world.clock.at += 2 * WAIT_S
        await story.work(story.world.database, LIMITS)
        assert not await story.left() & story.forgotten.keys()
        assert await story.world.differences(folder) == []


async def test_the_beginning_goes_in_one_purge_up_to_the_first_plan_that_is_kept(
    story: Story,
) -> None:
    await forgotten_plans(story, 3)
    kept = await story.begin()
    await forgotten_plans(story, 1)
    limits = replace(LIMITS, together=4, read=1_000)

    purger = await story.work(story.world.database, limits)

    tombstones = [sequence for sequence, _ in story.forgotten.values()]
    assert purger.beginnings == [tombstones[0]]  # which stands for a week
    assert (await story.log.state()).forgotten == tombstones[0] - 1
    assert purger.alone == []
    story.world.clock.at += FORGOTTEN_S + 2 * WAIT_S
    purger = await story.work(story.world.database, limits)
    first = await story.log.first_of(kept)
    assert first is not None
    assert purger.beginnings == [first.sequence]
    assert purger.alone == ["p4"]  # behind it; the last message of the log stays
    assert await story.left() == {kept}


async def test_facts_are_missing_up_to_where_a_plan_reaches_of_which_some_are(story: Story) -> None:
    await ended_plans(story, 1)
    partly = await story.begin()
    kept = await story.begin()
    await story.end(0)
    await story.world.flush()
    reach = (await story.log.state()).head
    for _ in ("p0", partly):
        await story.forget()
    await story.world.flush()

    purger = await story.work(story.world.database, EAGER)

    first = await story.log.first_of(kept)
    assert first is not None
    assert purger.beginnings == [first.sequence]
    assert (await story.log.state()).forgotten == reach
    assert [each.tombstone.plan_id for each in await to_remove(story.world.database, 10)] == [
        partly
    ]


async def test_a_beginning_is_read_up_to_a_bound_and_a_plan_behind_it_is_not_written_down_as_gone(
    story: Story,
) -> None:
    await forgotten_plans(story, 5)
    limits = replace(LIMITS, together=5, read=10, page=4)
    purger = await story.work(story.world.database, limits)
    assert purger.beginnings == [12]  # the last fact of the third plan
    assert len(await to_remove(story.world.database, 10)) == 3
    story.world.clock.at += WAIT_S + 1
    await story.work(story.world.database, limits)
    assert await story.left() == set()


async def test_a_fact_that_forgets_and_is_in_no_list_stays(story: Story) -> None:
    await forgotten_plans(story, 2)
    story.world.clock.at += FORGOTTEN_S + 1
    database, unlisted = story.world.database, story.forgotten["p0"][0]
    story.names = itertools.count()  # the id is free again
    await forgotten_plans(story, 1)
    await database.write([("DELETE FROM forgotten WHERE sequence = ?", [(unlisted,)])])
    purger = MemoryPurger(story.log)
    work = Removals(story.log, database, story.world.clock, purger.note, replace(EAGER, read=100))
    await work.work(purger)
    assert purger.beginnings == [unlisted]


@pytest.mark.parametrize(
    "subject", ["plans.ghost", "plans.ghost.t", "plans.p0.a", "plans.p0.a.b", "plans.p0.b"]
)
async def test_what_cannot_be_read_or_is_of_no_plan_stays_and_holds_nothing_up(
    story: Story, subject: str
) -> None:
    await ended_plans(story, 4)
    strange = story.log.publish(subject, b"{")
    limits = replace(LIMITS, worth=1, read=1_000)
    for name in ("p0", "p1", "p2", "p3"):
        last = await story.log.last_of(name)
        assert last is not None
        # As read before the strange message came.
        draft = Draft(plan_id=name, task_id=None, expected=last.sequence, events=(Forgotten(),))
        outcome = await story.log.append(draft)
        assert isinstance(outcome, Appended)
        story.forgotten[name] = (outcome.sequence, story.world.clock.at)
    story.ended.clear()
    await story.world.flush()

    purger = await story.work(story.world.database, limits)

    assert (purger.beginnings, purger.alone) == ([strange], [])
    await forgotten_plans(story, 4)
    purger = await story.work(story.world.database, limits)
    assert (purger.beginnings, purger.alone) == ([], ["p4", "p5", "p6", "p7"])
    story.world.clock.at += FORGOTTEN_S
    await story.begin()
    await story.world.flush()
    await story.work(story.world.database, limits)
    (first,) = await story.log.scan(0, 1)
    assert first.sequence == strange
    assert not story.forgotten.keys() & await story.left()


async def test_few_plans_wait_for_a_moment_and_then_go_alone(story: Story) -> None:
    await forgotten_plans(story, 1)
    await story.begin()
    purger = await story.work(story.world.database, LIMITS)
    assert (purger.beginnings, purger.alone) == ([], [])
    story.world.clock.at += WAIT_S + 1
    purger = await story.work(story.world.database, LIMITS)
    assert (purger.beginnings, purger.alone) == ([], ["p0"])


async def test_a_beginning_that_another_instance_removed_is_settled_without_a_purge(
    story: Story,
) -> None:
    await forgotten_plans(story, 4)
    await story.other_folds()
    limits = replace(LIMITS, read=1_000)
    assert (await story.work(story.world.database, limits)).beginnings
    purger = await story.work(story.other.database, limits)
    assert (purger.beginnings, purger.alone) == ([], [])
    # It has seen no more than that they were forgotten: the log is asked what is left of them.
    story.world.clock.at += WAIT_S + 1
    purger = await story.work(story.other.database, limits)
    assert (purger.beginnings, purger.alone) == ([], [])
    assert await to_remove(story.other.database, 10) == []


async def test_a_plan_that_this_instance_does_not_know_as_forgotten_stays(story: Story) -> None:
    """Its rows may be wrong; one purge must not take with it what they do not know."""
    await forgotten_plans(story, 4)
    database = story.world.database
    await database.write([("DELETE FROM forgotten WHERE plan_id = ?", [("p2",)])])
    limits = replace(LIMITS, together=3, worth=1, read=1_000)
    await story.note_owners()
    first = await story.log.first_of("p2")
    assert first is not None

    purger = await story.work(database, limits)

    assert purger.beginnings == [first.sequence]
    assert "p2" in await story.left()


async def test_rows_of_another_log_remove_no_beginning(story: Story) -> None:
    await forgotten_plans(story, 4)
    checkpoint = await story.world.database.checkpoint()
    assert checkpoint is not None
    await story.world.database.write([], replace(checkpoint, epoch="another"))
    purger = await story.work(story.world.database, replace(LIMITS, read=1_000))
    assert purger.beginnings == []
