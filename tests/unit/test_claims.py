"""The claim queue: who asks is served at once, or the moment something is claimable, in turn."""

import asyncio
import time

import pytest
from msgspec import Raw

from projections.board.holds import FIRST_S
from service.core.claim_queue import LEFT_TO_OTHERS_S
from streams.codec import encode_payload
from streams.log import LogUnavailable
from streams.plan import commands
from streams.plan.events import Started
from tests.memory_log import Fault
from tests.unit.claim_counter import Counter
from tests.unit.plan_story import task
from tests.waiting import eventually

LONG_S = 20.0


@pytest.fixture
def counter() -> Counter:
    return Counter()


async def test_what_is_claimable_is_granted_at_once_with_all_its_owner_needs(
    counter: Counter,
) -> None:
    await counter.instance.submit("p", task("a", input=b'{"n":1}', lease_s=9, timeout_s=7))
    (claim,) = await counter.ask("w1")
    assert (claim.plan_id, claim.task_id, claim.attempt, claim.fencing_token) == ("p", "a", 1, 2)
    assert (claim.lease_s, claim.timeout_s, bytes(claim.input)) == (9, 7, b'{"n":1}')
    assert claim.lease_until.timestamp() == counter.clock.at + 9
    assert counter.seen("success.total") == counter.seen("ready.count") == 1


async def test_dependencies_come_with_their_outputs_and_null_for_those_gone_without(
    counter: Counter,
) -> None:
    say = counter.instance.say
    await counter.instance.submit(
        "p", task("a"), task("b", on_failure="continue"), task("z", after="a b")
    )
    await counter.ask("w", limit=2)
    owned = {"plan_id": "p", "owner": "w", "attempt": 1}
    await say(commands.Complete(task_id="a", output=Raw(b"[1]"), **owned))  # type: ignore[arg-type]
    await say(commands.Fail(task_id="b", error_type="x", retryable=False, **owned))  # type: ignore[arg-type]
    (claim,) = await counter.ask("w")
    assert {key: bytes(value) for key, value in claim.dependencies.items()} == {
        "a": b"[1]",
        "b": b"null",
    }


async def test_never_more_than_asked_for_and_the_lease_asked_for(counter: Counter) -> None:
    await counter.instance.submit("p", *(task(f"t{n}") for n in range(10)))
    claims = await counter.ask(limit=4, lease_s=77)
    assert len({claim.task_id for claim in claims}) == 4
    assert {claim.lease_s for claim in claims} == {77}


async def test_nothing_claimable_is_an_empty_list_at_once(counter: Counter) -> None:
    assert await counter.ask() == []
    assert counter.seen("poll.total") == counter.seen("empty.total") == 1


async def test_who_waits_is_served_when_something_is_submitted(counter: Counter) -> None:
    (asking,) = await counter.waiting(counter.ask(wait_s=LONG_S))
    await counter.instance.submit("p", task("a"))
    assert counter.claim_queue.serve_waiting() == 1
    assert [claim.task_id for claim in await asking] == ["a"]


async def test_first_come_first_served(counter: Counter) -> None:
    asking = await counter.waiting(*(counter.ask(f"w{n}", wait_s=LONG_S) for n in range(3)))
    await counter.instance.submit("p", task("a"), task("b"))
    assert counter.claim_queue.serve_waiting() == 2
    assert [(await each)[0].task_id for each in asking[:2]] == ["a", "b"]
    assert not asking[2].done()
    counter.claim_queue.close()
    assert await asking[2] == []


async def test_who_wants_another_kind_does_not_stand_in_the_way(counter: Counter) -> None:
    asking = await counter.waiting(
        counter.ask("x", kinds=("rare",), wait_s=LONG_S), counter.ask("y", wait_s=LONG_S)
    )
    await counter.instance.submit("p", task("a"))
    assert counter.claim_queue.serve_waiting() == 1
    assert [claim.task_id for claim in await asking[1]] == ["a"]
    counter.claim_queue.close()
    await asking[0]


async def test_a_task_that_is_left_to_others_is_claimed_by_them_or_a_moment_later(
    counter: Counter,
) -> None:
    left = {("p", "a")}
    await counter.instance.submit("p", task("a"), task("b"))
    own = await counter.ask("w", leave_to_others=left)
    assert [claim.task_id for claim in own] == ["b"]
    counter.clock.at += LEFT_TO_OTHERS_S - 0.1
    assert await counter.ask("w", leave_to_others=left) == []
    assert counter.free == 1
    counter.clock.at += 0.1
    assert [claim.task_id for claim in await counter.ask("w", leave_to_others=left)] == ["a"]


async def test_who_leaves_a_task_to_others_does_not_hide_it_from_them(counter: Counter) -> None:
    left = {("p", "a")}
    first, second = await counter.waiting(
        counter.ask("w", kinds=("echo",), wait_s=LONG_S, leave_to_others=left),
        counter.ask("v", kinds=("echo",), wait_s=LONG_S),
    )
    await counter.instance.submit("p", task("a"))
    counter.claim_queue.serve_waiting()
    (claim,) = await second
    assert (claim.task_id, first.done()) == ("a", False)
    first.cancel()


async def test_a_claim_for_another_kind_does_not_put_off_who_waits_for_a_withheld_task(
    counter: Counter,
) -> None:
    await counter.instance.submit("p", task("a"))
    asks = counter.ask("w", kinds=("echo",), wait_s=LONG_S, leave_to_others={("p", "a")})
    (first,) = await counter.waiting(asks)
    counter.clock.at += LEFT_TO_OTHERS_S
    # The other claim comes when the task is due, and before the alarm for it rings.
    (other,) = await counter.waiting(counter.ask("v", kinds=("rare",), wait_s=LONG_S))
    (claim,) = await asyncio.wait_for(first, LONG_S / 4)
    assert claim.task_id == "a"
    counter.claim_queue.close()
    await other


async def test_the_end_of_a_retry_delay_wakes_the_waiting_claim(counter: Counter) -> None:
    await counter.instance.submit("p", task("a"))
    await counter.ask("w")
    failed = commands.Fail(
        plan_id="p", task_id="a", owner="w", attempt=1, error_type="x", retry_in_s=0.01
    )
    await counter.instance.say(failed)
    (asking,) = await counter.waiting(counter.ask(wait_s=LONG_S))
    counter.clock.at += 0.01
    # serve_waiting is not called: the queue set its own alarm.
    (claim,) = await asyncio.wait_for(asking, LONG_S)
    assert (claim.task_id, claim.attempt, claim.retry) == ("a", 2, 1)
    assert counter.seen("refining.count") == 1


async def test_a_claim_that_finds_nothing_gets_an_empty_list_in_time(counter: Counter) -> None:
    assert await counter.ask(wait_s=0.01) == []
    assert counter.claim_queue.serve_waiting() == 0


async def test_who_stops_waiting_gives_back_what_was_picked_meanwhile(counter: Counter) -> None:
    (asking,) = await counter.waiting(counter.ask(wait_s=LONG_S))
    await counter.instance.submit("p", task("a"))
    assert counter.claim_queue.serve_waiting() == 1
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert counter.free == 1


@pytest.mark.parametrize("turns", range(6))
async def test_leases_on_the_way_to_a_client_that_hung_up_are_released(
    counter: Counter, turns: int
) -> None:
    """Whatever its claims have come to: an append that is cancelled may land all the same."""
    await counter.instance.submit("p", *(task(f"t{n}") for n in range(5)))
    asking = asyncio.create_task(counter.ask(limit=5))
    for _ in range(1 + turns):
        await asyncio.sleep(0)
    assert not asking.done()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await eventually(lambda: counter.free == 5)
    tasks = counter.instance.board.plans["p"].tasks.values()
    assert {(each.status, each.retry, each.lost) for each in tasks} == {("READY", 0, 0)}
    assert counter.seen("success.total") == 5


async def test_what_is_found_in_the_moment_the_wait_ends_is_not_lost(counter: Counter) -> None:
    wait_s = 0.02
    (asking,) = await counter.waiting(counter.ask(wait_s=wait_s))
    await counter.instance.submit("p", task("a"))
    # The next turn of the loop finds both: this call, then the time-out, which is due by then.
    asyncio.get_running_loop().call_soon(counter.claim_queue.serve_waiting)
    busy_until = time.monotonic() + 2 * wait_s
    while time.monotonic() < busy_until:
        pass
    claims = await asking
    assert len(claims) + counter.free == 1


async def test_a_lost_race_is_counted_and_the_task_is_soon_claimable_again(
    counter: Counter,
) -> None:
    await counter.instance.submit("p", task("a"))
    counter.log.fail_next(Fault.CONFLICT)
    assert await counter.ask() == []
    assert counter.seen("conflict.total") == 1
    assert counter.free == 0, "not at once"
    counter.clock.at += FIRST_S
    assert len(await counter.ask()) == 1


async def test_of_many_claims_those_that_lose_are_counted_and_the_others_granted(
    counter: Counter,
) -> None:
    await counter.instance.submit("p", *(task(f"t{n}") for n in range(3)))
    counter.log.fail_next(Fault.CONFLICT)
    assert len(await counter.ask(limit=3)) == 2
    assert (counter.seen("success.total"), counter.seen("conflict.total")) == (2, 1)
    assert counter.free == 0, "not at once"
    counter.clock.at += FIRST_S
    assert len(await counter.ask(limit=3)) == 1


async def test_a_claim_among_many_whose_last_heartbeat_has_expired_is_granted(
    counter: Counter,
) -> None:
    await counter.instance.submit("p", *(task(f"t{n}") for n in range(3)))
    (first,) = await counter.ask(limit=1, lease_s=1)
    beat = commands.Heartbeat(plan_id="p", task_id=first.task_id, owner="w", attempt=1)
    await counter.instance.own(beat, counter.instance.origin)
    counter.clock.at += 3_600
    counter.log.expire()
    assert len(await counter.ask(limit=3)) == 3


async def test_a_claim_among_many_does_not_lose_to_a_message_that_stood_before_the_plan(
    counter: Counter,
) -> None:
    counter.log.publish("plans.p.t1", encode_payload(Started(owner="w", attempt=1)))
    await counter.instance.submit("p", *(task(f"t{n}") for n in range(3)))
    assert len(await counter.ask(limit=3)) == 3
    assert counter.seen("conflict.total") == 0


async def test_claims_that_lose_every_race_do_not_spin(counter: Counter) -> None:
    """A leader without quorum refuses each claim at once: 3,359 in 2 s before."""
    await counter.instance.submit("p", *(task(f"t{n}") for n in range(3)))
    counter.log.fail_next(*[Fault.CONFLICT] * 10_000)
    end = asyncio.get_running_loop().time() + 0.5

    async def time_passes() -> None:
        while asyncio.get_running_loop().time() < end:
            counter.clock.at += 0.01
            await asyncio.sleep(0.01)
            counter.claim_queue.serve_waiting()

    await asyncio.gather(time_passes(), counter.ask(limit=3, wait_s=0.5))
    assert 3 <= counter.seen("conflict.total") < 60


async def test_a_log_that_does_not_answer_is_said_and_nothing_stays_reserved(
    counter: Counter,
) -> None:
    await counter.instance.submit("p", task("a"), task("b"))
    counter.log.fail_next(Fault.LOST_BEFORE, Fault.LOST_BEFORE)
    with pytest.raises(LogUnavailable):
        await counter.ask(limit=2)
    assert counter.free == 2


async def test_what_the_log_did_take_is_granted_although_the_rest_failed(counter: Counter) -> None:
    await counter.instance.submit("p", task("a"), task("b"))
    counter.log.fail_next(Fault.LOST_BEFORE)
    assert len(await counter.ask(limit=2)) == 1
    assert counter.free == 1


async def test_a_reclaim_is_counted_among_the_ready(counter: Counter) -> None:
    await counter.instance.submit("p", task("a", lease_s=5))
    await counter.ask("w1")
    counter.clock.at += 5
    (claim,) = await counter.ask("w2")
    assert claim.attempt == 2
    assert counter.seen("reclaimed.total") == 1
    assert counter.seen("ready.count") == counter.seen("success.total") == 2


async def test_an_unreadable_fact_does_not_spin_a_waiting_claim(counter: Counter) -> None:
    await counter.instance.submit("p", task("a"))
    counter.log.publish("plans.p.a", b"garbage")
    await counter.instance.fold()
    (asking,) = await counter.waiting(counter.ask(wait_s=LONG_S))
    await counter.instance.submit("q", task("b"))
    assert counter.claim_queue.serve_waiting() == 1
    assert [claim.task_id for claim in await asking] == ["b"]


async def test_a_closed_queue_answers_all_claims_and_none_waits(counter: Counter) -> None:
    (asking,) = await counter.waiting(counter.ask(wait_s=LONG_S))
    counter.claim_queue.close()
    assert await asking == []
    assert await counter.ask(wait_s=LONG_S) == []


async def test_identities_of_the_claim_counters_hold(counter: Counter) -> None:
    await counter.instance.submit("p", *(task(f"t{n}", lease_s=3) for n in range(12)))
    for limit in (1, 5, 20, 3):
        for claim in await counter.ask("w", limit=limit):
            if claim.fencing_token % 2:
                failed = commands.Fail(
                    plan_id="p", task_id=claim.task_id, owner="w", attempt=claim.attempt,
                    error_type="x", retry_in_s=0,
                )  # fmt: skip
                await counter.instance.say(failed)
        counter.clock.at += 2
    assert counter.seen("success.total") == counter.seen("ready.count") + counter.seen(
        "refining.count"
    )
    assert counter.seen("reclaimed.total") <= counter.seen("ready.count")
    for lane in ("ready", "refining"):
        assert counter.seen(f"{lane}.fallback.count") <= counter.seen(f"{lane}.count")
    assert counter.seen("poll.total") == 4
