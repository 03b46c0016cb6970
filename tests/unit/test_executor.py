"""The executor from claim to result, on a core in memory."""

import asyncio
from typing import Any

import pytest

from streams.log import TooLarge
from streams.plan import commands
from tests.unit import executor_handlers
from tests.unit.executor_world import (
    IMPATIENT,
    QUICK,
    UNAVAILABLE,
    USER_HANDLERS,
    FakeCore,
    error_of,
    executing,
    output_of,
    spec,
)

DISPATCHED = "agent.task.dispatch.success.total"
REJECTED = "agent.task.dispatch.reject.total"
OVERRUN = "agent.task.worker.overrun.current"


# -- from claim to result ------------------------------------------------------------------------


async def test_a_task_is_claimed_started_and_completed() -> None:
    async with executing() as world:
        world.core.submit("p", spec("t", "echo", {"a": [1, 2]}))
        task = await world.finished("p", "t")
    assert output_of(task) == {"a": [1, 2]}
    assert [type(word) for word in world.core.said] == [commands.Complete]
    assert world.core.requests[0].start, "a task that gets a thread at once starts with its claim"
    assert world.core.origins[0].actor == "w1"
    assert world.core.origins[0].instance == "instance-1"
    assert world.metrics.counts[DISPATCHED] == 1
    (latency_s,) = world.metrics.observed["agent.task.claim_to_start.latency"]
    assert 0 <= latency_s < 60


async def test_only_kinds_with_a_handler_are_claimed() -> None:
    async with executing() as world:
        world.core.submit("p", spec("ours", "echo"), spec("theirs", "unheard-of"))
        await world.finished("p", "ours")
        assert world.core.task("p", "theirs").attempt == 0
        assert "unheard-of" not in (world.core.requests[0].kinds or ())


async def test_many_tasks_are_done_and_a_claim_never_exceeds_the_free_slots() -> None:
    async with executing(executor__worker__core_size=4) as world:
        world.core.submit("p", *(spec(f"t{n}", "echo", n) for n in range(200)))
        for n in range(200):
            assert output_of(await world.finished("p", f"t{n}")) == n
    assert max(request.limit for request in world.core.requests) == 4
    assert world.metrics.counts[DISPATCHED] == 200
    assert not world.metrics.counts[REJECTED]


async def test_max_per_tick_and_batch_size_bound_what_is_asked() -> None:
    flags: dict[str, Any] = {"executor.claim.max_per_tick": 3, "executor.claim.batch_size": 2}
    async with executing(**flags) as world:
        world.core.submit("p", *(spec(f"t{n}", "echo", n) for n in range(10)))
        for n in range(10):
            await world.finished("p", f"t{n}")
    assert {request.limit for request in world.core.requests} <= {1, 2}


async def test_a_tick_cuts_no_claim_short_that_the_next_one_makes_whole() -> None:
    core = FakeCore()
    core.submit("p", *(spec(f"t{n}", "stubborn") for n in range(8)))
    flags: dict[str, Any] = {
        "executor.claim.max_per_tick": 6,
        "executor.worker.core_size": 4,
        "executor.worker.queue_capacity": 4,
    }
    async with executing(core, executor__handlers=USER_HANDLERS, **flags) as world:
        await core.until(lambda: world.executor.snapshot().queued == 4, "four wait")
        assert [request.limit for request in core.requests] == [4, 4]
        executor_handlers.let_go.set()
        for n in range(8):
            await world.finished("p", f"t{n}")


@pytest.mark.parametrize("loops", [1, 2, 8, 64])
async def test_several_executor_loops_share_the_workers(loops: int) -> None:
    flags: dict[str, Any] = {
        "scheduling.task_executor.pool_size": loops,
        "executor.worker.queue_capacity": 5,
    }
    async with executing(**flags) as world:
        world.core.submit("p", *(spec(f"t{n}", "echo", n) for n in range(50)))
        for n in range(50):
            await world.finished("p", f"t{n}")
        assert world.executor.snapshot().capacity == 8 + 5
        assert world.executor.snapshot().alive
    assert world.metrics.counts[DISPATCHED] == 50


async def test_what_the_pool_refuses_is_released_at_once() -> None:
    core = FakeCore()
    core.grant_more = 2
    async with executing(
        core, executor__worker__core_size=1, executor__handlers=USER_HANDLERS
    ) as world:
        core.submit("p", *(spec(f"t{n}", "polite") for n in range(3)))
        await core.until(lambda: len(core.words(commands.Release)) == 2, "two releases")
        core.grant_more = 0
        assert {word.reason for word in core.words(commands.Release)} == {"dispatch rejected: full"}
        assert world.metrics.labels[REJECTED, "full"] == 2
        released = [core.task("p", word.task_id) for word in core.words(commands.Release)]
        assert all(task.retry == 0 and task.lost == 0 for task in released)


async def test_waiting_tasks_count_as_queued_and_start_only_when_a_thread_is_free() -> None:
    flags: dict[str, Any] = {"executor.worker.core_size": 1, "executor.worker.queue_capacity": 1}
    async with executing(executor__handlers=USER_HANDLERS, **flags) as world:
        world.core.submit("p", spec("first", "stubborn"), spec("second", "stubborn"))
        await world.core.until(lambda: world.executor.snapshot().queued == 1, "one waits")
        assert world.executor.snapshot().in_flight == 1
        assert world.core.words(commands.Start) == [], "one started with its claim, one waits"
        executor_handlers.let_go.set()
        await world.finished("p", "first")
        await world.finished("p", "second")
        assert len(world.core.words(commands.Start)) == 1


async def test_a_refused_start_keeps_the_handler_from_running() -> None:
    core = FakeCore()

    def steal(command: object) -> None:
        if isinstance(command, commands.Start):
            core.take_over("p", "t")

    core.trouble = steal
    flags: dict[str, Any] = {"executor.worker.core_size": 1, "executor.worker.queue_capacity": 1}
    async with executing(core, executor__handlers=USER_HANDLERS, **flags) as world:
        core.submit("before", spec("t", "stubborn"))
        core.submit("p", spec("t", "polite"))
        await core.until(lambda: world.executor.snapshot().queued == 1, "one waits for a thread")
        executor_handlers.let_go.set()
        await core.until(lambda: core.refused, "the start is refused")
    assert "p" not in executor_handlers.seen
    assert core.task("p", "t").owner == "thief"


# -- when the log is in trouble ------------------------------------------------------------------


async def test_a_result_is_said_again_until_it_stands() -> None:
    core = FakeCore()
    failures = iter([UNAVAILABLE, UNAVAILABLE])
    core.trouble = lambda word: (
        next(failures, None) if isinstance(word, commands.Complete) else None
    )
    async with executing(core) as world:
        core.submit("p", spec("t", "echo", 1))
        await world.finished("p", "t")
    assert len(core.words(commands.Complete)) == 3


async def test_a_result_is_given_up_when_the_lease_is_surely_lost() -> None:
    core = FakeCore()
    core.trouble = lambda word: UNAVAILABLE if isinstance(word, commands.Complete) else None
    async with executing(core, **QUICK) as world:
        core.submit("p", spec("t", "echo", 1))
        await core.until(lambda: core.words(commands.Complete), "it is tried")
        await world.executor.drain(5)
    assert len(core.words(commands.Complete)) >= 2
    assert core.task("p", "t").status == "RUNNING"


async def test_an_output_that_the_log_cannot_take_is_a_failure() -> None:
    core = FakeCore()
    core.trouble = lambda word: TooLarge("2 MiB") if isinstance(word, commands.Complete) else None
    async with executing(core) as world:
        core.submit("p", spec("t", "echo", 1))
        task = await world.finished("p", "t", "FAILED")
    assert error_of(task) == ("too_large", "2 MiB")


async def test_claiming_goes_on_after_the_log_was_away() -> None:
    core = FakeCore()
    core.claim_trouble = UNAVAILABLE
    async with executing(core) as world:
        core.submit("p", spec("t", "echo", 1))
        await core.until(lambda: len(core.requests) >= 2, "it is tried again")
        core.claim_trouble = None
        await world.finished("p", "t")


@pytest.mark.parametrize("bug", [AssertionError("a bug"), asyncio.CancelledError("lost")])
async def test_a_dispatcher_that_ends_is_reported(bug: BaseException) -> None:
    core = FakeCore()
    core.claim_trouble = bug
    async with executing(core) as world:
        async with asyncio.timeout(20):
            assert (await world.supervision.died).startswith("the loop 'executor-0, claiming'")
        assert not world.executor.snapshot().alive


async def test_heartbeats_that_end_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    core = FakeCore()
    async with executing(core, executor__handlers=USER_HANDLERS) as world:

        def broken(now: float) -> float:
            raise AssertionError(now)

        monkeypatch.setattr(world.executor.heartbeats, "step", broken)
        core.submit("p", spec("t", "polite"))
        async with asyncio.timeout(20):
            assert "heartbeats, renewing" in await world.supervision.died


# -- draining ------------------------------------------------------------------------------------


async def test_draining_lets_tasks_end_and_claims_no_more() -> None:
    core = FakeCore()
    async with executing(core, drain_s=5) as world:
        core.submit("p", spec("t", "sleep", {"seconds": 0.2}))
        await core.until(lambda: core.task("p", "t").status == "RUNNING", "it began")
        draining = asyncio.create_task(world.executor.drain(5))
        await core.until(lambda: world.executor.snapshot().draining)
        core.submit("q", spec("t", "echo"))
        await draining
    assert core.task("p", "t").status == "COMPLETED"
    assert core.task("q", "t").status == "READY"
    assert core.task("q", "t").retry == 0


async def test_draining_lets_waiting_tasks_run_too() -> None:
    core = FakeCore()
    flags: dict[str, Any] = {"executor.worker.core_size": 1, "executor.worker.queue_capacity": 1}
    async with executing(core, executor__handlers=USER_HANDLERS, **flags) as world:
        core.submit("p", spec("first", "sleep", {"seconds": 0.2}), spec("second", "echo"))
        await core.until(lambda: world.executor.snapshot().queued == 1, "one waits")
        await world.executor.drain(5)
    assert core.task("p", "second").status == "COMPLETED"


async def test_draining_stops_and_releases_what_cannot_end() -> None:
    core = FakeCore()
    async with executing(core, executor__handlers=USER_HANDLERS) as world:
        core.submit("p", spec("t", "polite"))
        await core.until(lambda: executor_handlers.seen.get("p"), "it began")
        await world.executor.drain(0)
    task = core.task("p", "t")
    assert (task.status, task.retry, task.lost) == ("READY", 0, 0)
    assert core.words(commands.Release)[0].reason == "draining"


async def test_draining_does_not_wait_for_the_deaf() -> None:
    core = FakeCore()
    async with executing(core, limits=IMPATIENT, executor__handlers=USER_HANDLERS) as world:
        core.submit("p", spec("t", "stubborn"))
        await core.until(lambda: executor_handlers.seen.get("p"), "it began")
        async with asyncio.timeout(executor_handlers.PATIENCE_S / 2):
            await world.executor.drain(0)
    assert core.task("p", "t").status == "READY"
