"""The executor from claim to result, on a core in memory."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from service.executor.handlers.registry import load_handlers
from service.executor.limits import ExecutorLimits
from service.settings.config import ConfigError, ExecutorSettings
from streams.log import LogUnavailable, TooLarge
from streams.plan import commands
from streams.plan.decide import Invalid
from streams.plan.events import Completed, Failed, Released
from tests.unit import executor_handlers
from tests.unit.executor_world import FakeCore, executing, json_of, output_of, spec

USER_HANDLERS = ("tests.unit.executor_handlers",)
DISPATCHED = "agent.task.dispatch.success.total"
REJECTED = "agent.task.dispatch.reject.total"
OVERRUN = "agent.task.worker.overrun.current"
IMPATIENT = ExecutorLimits(grace_s=0.05, kill_after_s=0.2)
UNAVAILABLE = LogUnavailable("the log does not answer")


@pytest.fixture(autouse=True)
def nobody_is_held() -> Iterator[None]:
    executor_handlers.let_go.clear()
    executor_handlers.seen.clear()
    yield
    executor_handlers.let_go.set()


def error_of(task: object) -> tuple[str, str]:
    result = getattr(task, "result", None)
    assert isinstance(result, Failed), result
    return result.error_type, result.error_message


# -- from claim to result ---------------------------------------------------------------------


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


# -- what handlers may do ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "error_type", "words"),
    [
        ("boom", "handler_error", "KeyError"),
        ("system_exit", "handler_error", "SystemExit"),
        ("no_json", "bad_output", "no JSON"),
        ("endless_json", "bad_output", "no JSON"),
    ],
)
async def test_a_handler_that_misbehaves_is_a_failure(
    kind: str, error_type: str, words: str
) -> None:
    async with executing(executor__handlers=USER_HANDLERS) as world:
        world.core.submit("p", spec("t", kind, max_retries=0))
        task = await world.finished("p", "t", "FAILED")
    assert error_of(task)[0] == error_type
    assert words in error_of(task)[1]


async def test_a_handler_says_why_and_when_to_try_again() -> None:
    wish = {"error_type": "rate_limited", "message": "later", "retry_in_s": 42}
    async with executing(executor__handlers=USER_HANDLERS) as world:
        world.core.submit("p", spec("t", "fails", wish))
        task = await world.finished("p", "t", "REFINING")
    assert error_of(task) == ("rate_limited", "later")
    assert isinstance(task.result, Failed)
    assert task.result.retry_in_s == 42


async def test_an_unheard_of_error_type_is_other() -> None:
    wish = {"error_type": "id-4711", "message": "?", "retryable": False}
    async with executing(executor__handlers=USER_HANDLERS) as world:
        world.core.submit("p", spec("t", "fails", wish))
        assert error_of(await world.finished("p", "t", "FAILED"))[0] == "other"


async def test_model_and_tokens_are_recorded() -> None:
    async with executing(executor__handlers=USER_HANDLERS) as world:
        world.core.submit("p", spec("t", "result"))
        task = await world.finished("p", "t")
    assert isinstance(task.result, Completed)
    assert task.result.model_name == "m1"
    assert task.result.token_usage is not None
    assert task.result.token_usage.total_tokens == 3


async def test_a_critics_mapping_is_its_verdict() -> None:
    critic = spec(
        "c", "judges", {"pass": True, "feedback": "fine"}, type="critic", depends_on=("t",),
        target="t",
    )  # fmt: skip
    async with executing(executor__handlers=USER_HANDLERS) as world:
        world.core.submit("p", spec("t", "echo"), critic)
        task = await world.finished("p", "c")
    assert isinstance(task.result, Completed)
    assert task.result.verdict is not None
    assert json_of(task.result.verdict.feedback) == "fine"


@pytest.mark.parametrize(
    "task",
    [
        spec("c", "judges", "no verdict", type="critic", depends_on=("t",), target="t"),
        spec("c", "result", "verdict"),
    ],
)
async def test_verdicts_are_for_critics_and_critics_for_verdicts(task: object) -> None:
    async with executing(executor__handlers=USER_HANDLERS) as world:
        world.core.submit("p", spec("t", "echo"), task)  # pyright: ignore[reportArgumentType]
        assert error_of(await world.finished("p", "c", "FAILED"))[0] == "bad_output"


async def test_the_idempotency_key_outlives_an_attempt_but_not_a_critics_round() -> None:
    about = spec("t", "about", depends_on=("before",))
    critic = spec("c", "judges", {"pass": False, "feedback": "again"}, type="critic", depends_on=("t",), target="t")  # fmt: skip # noqa: E501
    core = FakeCore()
    async with executing(core, executor__handlers=USER_HANDLERS) as world:
        core.submit("p", spec("before", "echo", 7), about, critic)
        await core.until(lambda: len(core.words(commands.Complete, "t")) >= 2, "two rounds")
        await world.core.until(lambda: core.task("p", "t").attempt >= 2)
    first, second = (json_of(word.output) for word in core.words(commands.Complete, "t")[:2])
    assert first["key"] == "p/t"
    assert first["attempt_key"] == "p/t/1"
    assert first["dependencies"] == {"before": 7}
    assert second["feedback"] == "again"
    assert second["key"].startswith("p/t/")
    assert second["token"] > first["token"]


async def test_a_thread_that_cannot_be_started_fails_the_attempt_and_costs_no_slot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, refused = threading.Thread.start, list[str]()

    def one_is_refused(thread: threading.Thread) -> None:
        if thread.name.startswith("worker-") and not refused:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", one_is_refused)
    async with executing(executor__worker__core_size=1) as world:
        world.core.submit("p", spec("t", "echo", max_retries=0))
        task = await world.finished("p", "t", "FAILED")
        world.core.submit("q", spec("t", "echo"))
        await world.finished("q", "t")
    assert error_of(task)[0] == "handler_error"
    assert "can't start new thread" in error_of(task)[1]


# -- time-outs --------------------------------------------------------------------------------


async def test_a_time_out_is_retried_once_and_then_final() -> None:
    core = FakeCore()
    async with executing(core, executor__handlers=USER_HANDLERS) as world:
        core.submit("p", spec("t", "polite", timeout_s=0.05))
        task = await world.finished("p", "t", "REFINING")
        assert error_of(task)[0] == "timeout"
        task.claimable_at = 0
        await world.finished("p", "t", "FAILED")
    assert executor_handlers.seen["p"].count("stopped: timeout") == 2
    assert core.task("p", "t").attempt == 2


async def test_a_tasks_own_times_win_and_the_executors_are_for_tasks_that_state_none() -> None:
    times: dict[str, Any] = {"executor.execution.timeout_s": 7, "executor.claim.lease_s": 9}
    async with executing(executor__handlers=USER_HANDLERS, **times) as world:
        world.core.submit(
            "p", spec("own", "about", timeout_s=1000, lease_s=60), spec("none", "about")
        )
        own, none = await world.finished("p", "own"), await world.finished("p", "none")
    assert (output_of(own)["timeout_s"], own.lease_s) == (1000, 60)
    assert (output_of(none)["timeout_s"], none.lease_s) == (7, 9)


async def test_an_attempt_that_states_no_time_out_has_the_executors() -> None:
    async with executing(
        executor__handlers=USER_HANDLERS, executor__execution__timeout_s=0.05
    ) as world:
        world.core.submit("p", spec("t", "polite"))
        assert error_of(await world.finished("p", "t", "REFINING"))[0] == "timeout"


async def test_an_async_handler_is_cancelled_where_it_awaits() -> None:
    async with executing(executor__handlers=USER_HANDLERS) as world:
        world.core.submit("p", spec("t", "async_polite", timeout_s=0.05))
        assert error_of(await world.finished("p", "t", "REFINING"))[0] == "timeout"
    assert executor_handlers.seen["p"][:2] == ["began", "stopped"]


async def test_a_deaf_handler_keeps_its_slot_and_its_result_is_dropped() -> None:
    core = FakeCore()
    async with executing(
        core, limits=IMPATIENT, executor__handlers=USER_HANDLERS, executor__worker__core_size=1
    ) as world:
        core.submit("p", spec("t", "stubborn", timeout_s=0.05, max_retries=0))
        await world.finished("p", "t", "FAILED")
        asked = len(core.requests)
        core.submit("q", spec("t", "echo"))
        assert world.executor.snapshot().in_flight == 1
        (overrun,) = world.executor.snapshot().overruns
        assert (overrun.plan_id, overrun.task_id, overrun.attempt) == ("p", "t", 1)
        assert (overrun.kind, overrun.reason) == ("stubborn", "timeout")
        assert overrun.handler == "tests.unit.executor_handlers.stubborn"
        assert ("p", "t") in world.executor.overruns
        assert core.task("q", "t").attempt == 0
        assert len(core.requests) == asked
        await core.until(lambda: world.metrics.gauges[OVERRUN] == 1, "it is shown")
        executor_handlers.let_go.set()
        await world.finished("q", "t")
        assert not world.executor.overruns
        assert not world.executor.snapshot().overruns
    assert world.metrics.gauges[OVERRUN] == 0
    assert not core.words(commands.Complete, "p")
    assert error_of(core.task("p", "t"))[0] == "timeout"


async def test_the_next_attempt_is_left_to_others_while_the_last_one_runs_on() -> None:
    core = FakeCore()
    async with executing(
        core, limits=IMPATIENT, executor__handlers=USER_HANDLERS, executor__worker__core_size=2
    ) as world:
        core.submit("p", spec("t", "stubborn", timeout_s=0.05))
        await world.finished("p", "t", "REFINING")
        assert ("p", "t") in core.requests[-1].leave_to_others
        executor_handlers.let_go.set()
        await core.until(lambda: ("p", "t") not in core.requests[-1].leave_to_others, "it ended")


# -- leases -----------------------------------------------------------------------------------

QUICK: dict[str, Any] = {"executor.claim.lease_s": 0.6, "executor.claim.heartbeat_s": 0.1}


async def test_heartbeats_keep_a_long_task_alive_beyond_its_lease() -> None:
    async with executing(executor__handlers=USER_HANDLERS, **QUICK) as world:
        world.core.submit("p", spec("t", "sleep", {"seconds": 1.5}))
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
    async with executing(core, executor__handlers=USER_HANDLERS, **QUICK) as world:
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
    async with executing(core, executor__handlers=USER_HANDLERS, **QUICK):
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
    async with executing(core, executor__handlers=USER_HANDLERS, **QUICK) as world:
        core.submit("p", spec("t", "sleep", {"seconds": 1}))
        await world.finished("p", "t")


async def test_a_failed_plan_asks_its_running_tasks_to_stop_and_they_are_released() -> None:
    core = FakeCore()
    async with executing(core, executor__handlers=USER_HANDLERS, **QUICK) as world:
        core.submit("p", spec("t", "polite"), spec("bad", "boom", max_retries=0))
        await world.finished("p", "t", "SKIPPED")
    assert executor_handlers.seen["p"] == ["began", "stopped: plan_failed"]
    assert isinstance(core.task("p", "t").result, Released)


async def test_the_tokens_of_attempts_that_are_stopped_are_kept() -> None:
    async with executing(executor__handlers=USER_HANDLERS, **QUICK) as world:
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
    async with executing(executor__handlers=USER_HANDLERS, **QUICK) as world:
        world.core.submit("p", spec("t", "late"), spec("bad", "boom", max_retries=0))
        await world.finished("p", "t")


async def test_a_cancelled_plan_reaches_a_running_handler() -> None:
    core = FakeCore()
    async with executing(core, executor__handlers=USER_HANDLERS, **QUICK):
        core.submit("p", spec("t", "polite"))
        await core.until(lambda: executor_handlers.seen.get("p"), "it began")
        core.do(commands.Cancel(plan_id="p"))
        await core.until(lambda: len(executor_handlers.seen["p"]) == 2, "it stopped")
    assert executor_handlers.seen["p"][1] == "stopped: lease_lost"


# -- progress ---------------------------------------------------------------------------------


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
    async with executing(core, executor__handlers=USER_HANDLERS, **QUICK) as world:
        core.submit("p", spec("t", "shows", {"seconds": 1.5}))
        task = await world.finished("p", "t")
    assert task.attempt == 1
    assert not core.refused


# -- when the log is in trouble ---------------------------------------------------------------


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


# -- draining ---------------------------------------------------------------------------------


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


# -- processes --------------------------------------------------------------------------------


async def test_a_process_handler_runs_elsewhere_and_its_process_is_used_again() -> None:
    async with executing(executor__handlers=USER_HANDLERS, executor__worker__core_size=1) as world:
        world.core.submit("p", spec("a", "process_pid"), spec("b", "process_pid"))
        first = output_of(await world.finished("p", "a"))
        second = output_of(await world.finished("p", "b"))
    assert first == second
    assert first != __import__("os").getpid()


async def test_a_killed_process_is_a_failure_and_the_pool_heals() -> None:
    async with executing(executor__handlers=USER_HANDLERS, executor__worker__core_size=1) as world:
        world.core.submit("p", spec("t", "process_killed", max_retries=0))
        task = await world.finished("p", "t", "FAILED")
        assert error_of(task)[0] == "out_of_memory"
        world.core.submit("q", spec("t", "process_pid"))
        await world.finished("q", "t")


@pytest.mark.parametrize("kind", ["process_polite", "process_deaf"])
async def test_a_process_that_is_timed_out_ends_even_when_it_is_deaf(
    kind: str,
) -> None:
    core = FakeCore()
    async with executing(
        core, limits=IMPATIENT, executor__handlers=USER_HANDLERS, executor__worker__core_size=1
    ) as world:
        core.submit("p", spec("t", kind, timeout_s=1.5, max_retries=0))
        await world.finished("p", "t", "FAILED")
        assert error_of(core.task("p", "t"))[0] == "timeout"
        core.submit("q", spec("t", "echo"))
        await world.finished("q", "t")


# -- handlers that are configured -------------------------------------------------------------


def test_a_module_that_cannot_be_imported_stops_the_start() -> None:
    with pytest.raises(ConfigError, match=r"no\.such\.module.*ModuleNotFoundError"):
        load_handlers(ExecutorSettings(handlers=("no.such.module",)))


def test_a_module_without_handlers_stops_the_start() -> None:
    with pytest.raises(ConfigError, match=r"'json' has no @handler"):
        load_handlers(ExecutorSettings(handlers=("json",)))


def test_a_kind_with_two_handlers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_handlers, "mine", executor_handlers.handler("echo")(print), False)
    with pytest.raises(ConfigError, match="'echo' has two handlers"):
        load_handlers(ExecutorSettings(handlers=USER_HANDLERS))
