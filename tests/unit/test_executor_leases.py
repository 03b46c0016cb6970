"""The executor renews its leases, stops handlers whose lease is lost, and shows their progress."""

import asyncio
from typing import Any

import pytest

from streams.log import LogUnavailable
from streams.plan import commands
from streams.plan.decisions import Invalid
from streams.plan.events import Completed, Failed, Released
from tests.unit import executor_handlers
from tests.unit.executor_world import (
    QUICK,
    RENEWED,
    UNAVAILABLE,
    USER_HANDLERS,
    FakeCore,
    executing,
    json_of,
    spec,
)

LEASE_S = 1.5  # a busy machine holds no process so long
LEASE: dict[str, Any] = {"executor.claim.lease_s": LEASE_S}

# -- leases --------------------------------------------------------------------------------------


async def test_heartbeats_keep_a_long_task_alive_beyond_its_lease() -> None:
    async with executing(executor__handlers=USER_HANDLERS, **RENEWED | LEASE) as world:
        world.core.submit("p", spec("t", "sleep", {"seconds": 2 * LEASE_S}))
        task = await world.finished("p", "t")
    assert task.attempt == 1
    assert len(world.core.words(commands.Heartbeat)) >= 8
    assert not world.core.refused


async def test_blocking_and_busy_handlers_do_not_delay_heartbeats() -> None:
    async with executing(
        executor__handlers=USER_HANDLERS, executor__worker__core_size=4,
        **{"executor.claim.lease_s": 3, "executor.claim.heartbeat_s": 0.3},
    ) as world:  # fmt: skip
        world.core.submit("p", *(spec(f"t{n}", "busy", {"seconds": 1.5}) for n in range(4)))
        for n in range(4):
            assert (await world.finished("p", f"t{n}")).attempt == 1
            assert len(world.core.words(commands.Heartbeat, f"t{n}")) >= 3
    assert not world.core.refused


async def test_a_refused_heartbeat_stops_the_handler_and_nothing_is_reported() -> None:
    core = FakeCore()
    async with executing(core, executor__handlers=USER_HANDLERS, **RENEWED) as world:
        core.submit("p", spec("t", "polite"))
        await core.until(lambda: executor_handlers.seen.get("p"), "it began")
        core.take_over("p", "t")
        await core.until(lambda: len(executor_handlers.seen["p"]) == 2, "it stopped")
        await core.until(lambda: not world.executor.snapshot().in_flight, "the slot is free")
    assert executor_handlers.seen["p"][1] == "stopped: lease_lost"
    assert [type(word) for word in core.refused] == [commands.Heartbeat]
    (told,) = world.audit.about("lease_lost_cancelled")
    assert (told["plan_id"], told["task_id"], told["owner"], told["attempt"]) == ("p", "t", "w1", 1)
    assert told["expected"] == {"owner": "w1", "attempt": 1, "sequence": 2}
    assert (told["actual"].owner, told["actual"].attempt) == ("thief", 2)
    assert core.task("p", "t").owner == "thief"


async def test_a_callback_of_a_handler_delays_no_heartbeats() -> None:
    core = FakeCore()
    async with executing(core, executor__handlers=USER_HANDLERS, **RENEWED):
        core.submit("p", spec("t", "hooked"), spec("other", "polite"))
        await core.until(lambda: core.task("p", "t").status == "RUNNING", "it runs")
        await core.until(lambda: executor_handlers.seen.get("p"), "it began")
        core.take_over("p", "t")
        await core.until(lambda: len(executor_handlers.seen.get("p", [])) == 3, "both are called")
        beats = len(core.words(commands.Heartbeat, "other"))
        await core.until(
            lambda: len(core.words(commands.Heartbeat, "other")) > beats + 2, "others are renewed"
        )
    called = executor_handlers.seen["p"]
    (thread,) = [said.split(": ")[1] for said in called if said.startswith("called back")]
    assert thread.startswith("worker-0-")
    assert thread.endswith("-cancel")
    assert "the next one, too" in called


async def test_a_worker_cut_off_from_the_log_fences_itself() -> None:
    core = FakeCore()
    core.trouble = lambda word: UNAVAILABLE if isinstance(word, commands.Heartbeat) else None
    async with executing(core, executor__handlers=USER_HANDLERS, **QUICK) as world:
        core.submit("p", spec("t", "polite"))
        await core.until(lambda: len(executor_handlers.seen.get("p", [])) == 2, "it stopped")
        await core.until(lambda: not world.executor.snapshot().in_flight, "the slot is free")
        assert core.task("p", "t").owner == "w1"
    assert executor_handlers.seen["p"][1] == "stopped: fenced"
    assert world.metrics.labels["agent.task.heartbeat.error.total", "fenced"] == 1
    (told,) = world.audit.about("lease_lost_cancelled")
    assert (told["owner"], told["attempt"], told["actual"]) == ("w1", 1, None)
    assert told["detail"].startswith("fenced itself: no renewal got through for ")
    assert {type(word) for word in core.said} == {commands.Heartbeat}


async def test_heartbeats_that_hang_do_not_keep_the_worker_from_fencing_itself() -> None:
    core = FakeCore()
    never = asyncio.Event()
    core.hold = lambda word: never if isinstance(word, commands.Heartbeat) else None
    async with executing(core, executor__handlers=USER_HANDLERS, **QUICK):
        core.submit("p", spec("t", "polite"))
        await core.until(lambda: len(executor_handlers.seen.get("p", [])) == 2, "it stopped")
        never.set()
    assert executor_handlers.seen["p"][1] == "stopped: fenced"


async def test_one_lost_heartbeat_is_made_good() -> None:
    core = FakeCore()
    failures = iter([UNAVAILABLE, UNAVAILABLE])
    core.trouble = lambda word: (
        next(failures, None) if isinstance(word, commands.Heartbeat) else None
    )
    async with executing(core, executor__handlers=USER_HANDLERS, **RENEWED) as world:
        core.submit("p", spec("t", "sleep", {"seconds": 1}))
        task = await world.finished("p", "t")
    assert task.attempt == 1
    assert core.words(commands.Heartbeat)[2:], "it is said again"


async def test_a_failed_plan_asks_its_running_tasks_to_stop_and_they_are_released() -> None:
    core = FakeCore()
    async with executing(core, executor__handlers=USER_HANDLERS, **RENEWED) as world:
        core.submit("p", spec("t", "polite"), spec("bad", "boom", max_retries=0))
        await world.finished("p", "t", "SKIPPED")
    assert executor_handlers.seen["p"] == ["began", "stopped: plan_failed"]
    assert isinstance(core.task("p", "t").result, Released)


async def test_the_tokens_of_attempts_that_are_stopped_are_kept() -> None:
    async with executing(executor__handlers=USER_HANDLERS, **RENEWED) as world:
        core = world.core
        core.submit("late", spec("t", "spends", timeout_s=0.05, max_retries=0))
        core.submit("failing", spec("t", "spends"), spec("bad", "boom", max_retries=0))
        timed_out = await world.finished("late", "t", "FAILED")
        released = await world.finished("failing", "t", "SKIPPED")
        core.submit("draining", spec("t", "spends"))
        await core.until(lambda: executor_handlers.seen.get("draining"), "it began")
    drained = core.task("draining", "t")
    assert isinstance(timed_out.result, Failed)
    for task in (timed_out, released, drained):
        assert task.execution is not None
        assert task.execution.model_name == "m1"
        assert task.execution.token_usage is not None
        assert task.execution.token_usage.total_tokens == 3


async def test_work_that_is_done_although_its_plan_failed_counts() -> None:
    async with executing(executor__handlers=USER_HANDLERS, **RENEWED) as world:
        world.core.submit("p", spec("t", "late"), spec("bad", "boom", max_retries=0))
        await world.finished("p", "t")


async def test_a_cancelled_plan_reaches_a_running_handler() -> None:
    core = FakeCore()
    async with executing(core, executor__handlers=USER_HANDLERS, **RENEWED):
        core.submit("p", spec("t", "polite"))
        await core.until(lambda: executor_handlers.seen.get("p"), "it began")
        core.do(commands.Cancel(plan_id="p"))
        await core.until(lambda: len(executor_handlers.seen["p"]) == 2, "it stopped")
    assert executor_handlers.seen["p"][1] == "stopped: lease_lost"


# -- progress ------------------------------------------------------------------------------------


async def test_progress_is_shown_coalesced_and_never_after_the_result() -> None:
    async with executing(executor__handlers=USER_HANDLERS) as world:
        world.core.submit("p", spec("t", "shows", {"seconds": 0.5}))
        await world.finished("p", "t")
    shown = [json_of(word.data)["number"] for word in world.core.words(commands.Progress)]
    assert 1 <= len(shown) <= 4
    assert shown[-1] == 499
    assert isinstance(world.core.said[-1], commands.Complete)


@pytest.mark.parametrize("kind", ["speaks", "process_speaks"])
async def test_the_texts_shown_are_the_whole_output(kind: str) -> None:
    core, failures = FakeCore(), iter([True, False, True])
    core.trouble = lambda word: (
        LogUnavailable("away")
        if isinstance(word, commands.Progress) and next(failures, False)
        else None
    )
    async with executing(core, executor__handlers=USER_HANDLERS) as world:
        core.submit("p", spec("t", kind))
        task = await world.finished("p", "t")
    log = [word for word in core.accepted if isinstance(word, commands.Progress)]
    shown = [json_of(word.data) for word in log]
    assert isinstance(task.result, Completed)
    assert "".join(piece["text"] for piece in shown) == json_of(task.result.output)
    assert len(shown) < 20, "words are gathered"
    assert isinstance(core.said[-1], commands.Complete)


async def test_a_result_waits_for_the_progress_that_is_on_its_way() -> None:
    core = FakeCore()
    arrives = asyncio.Event()
    core.hold = lambda word: arrives if isinstance(word, commands.Progress) else None
    async with executing(core, executor__handlers=USER_HANDLERS) as world:
        core.submit("p", spec("t", "shows", {"seconds": 0.2}))
        await core.until(lambda: core.words(commands.Progress), "it is on its way")
        await core.until(lambda: not world.executor.snapshot().in_flight, "the handler ended")
        core.submit("q", spec("t", "echo"))
        await world.finished("q", "t")
        assert not core.words(commands.Complete, "t")[:-1], "only q's"
        arrives.set()
        await world.finished("p", "t")
    assert not core.refused


async def test_progress_that_is_refused_costs_no_lease() -> None:
    core = FakeCore()

    def refuse(word: object) -> Invalid | None:
        shows = isinstance(word, commands.Progress) or getattr(word, "progress", None) is not None
        return Invalid("task.progress: it cannot be read back") if shows else None

    core.refuse = refuse
    async with executing(core, executor__handlers=USER_HANDLERS, **RENEWED | LEASE) as world:
        core.submit("p", spec("t", "shows", {"seconds": 2 * LEASE_S}))
        task = await world.finished("p", "t")
    assert task.attempt == 1
    assert not core.refused
