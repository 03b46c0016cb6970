"""What handlers may do to the executor, and what it does with them at their time-out."""

import threading
from typing import Any

import pytest

from service.executor.handlers.registry import load_handlers
from service.settings.config import ConfigError, ExecutorSettings
from streams.plan import commands
from streams.plan.events import Completed, Failed
from tests.unit import executor_handlers
from tests.unit.executor_world import (
    IMPATIENT,
    USER_HANDLERS,
    FakeCore,
    error_of,
    executing,
    json_of,
    output_of,
    spec,
)

DISPATCHED = "agent.task.dispatch.success.total"
REJECTED = "agent.task.dispatch.reject.total"
OVERRUN = "agent.task.worker.overrun.current"


# -- what handlers may do ------------------------------------------------------------------------


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


# -- time-outs -----------------------------------------------------------------------------------


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


# -- processes -----------------------------------------------------------------------------------


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


# -- handlers that are configured ----------------------------------------------------------------


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
