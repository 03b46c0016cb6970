"""One set of functions, run by the built-in executor and by a worker outside: the same facts."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from holdfast_worker import Client, Event, Worker
from holdfast_worker.testing import Server
from tests.integration import kit_handlers

MODULE = "tests.integration.kit_handlers"


@pytest.fixture(scope="module", params=["inside", "outside"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server whose executor has the handlers, or one beside which a worker has them."""
    inside = request.param == "inside"
    settings = {"executor.handlers": f'["{MODULE}"]'} if inside else {}
    with Server(settings) as server:
        if inside:
            yield server.url
            return
        worker = Worker("kit", slots=4, url=server.url)
        worker.include(*handlers())
        with worker:
            yield server.url


@pytest.fixture
async def client(url: str) -> AsyncIterator[Client]:
    async with Client(url) as client:
        yield client


def handlers() -> list[Any]:
    return [each for each in vars(kit_handlers).values() if hasattr(each, "invoke")]


async def run(client: Client, kind: str, task_input: object = None, **fields: Any) -> Any:
    """One task of a plan of its own, to its end."""
    task = {"id": "t", "kind": kind, "input": task_input, "max_retries": 1, **fields}
    submitted = await client.submit({"context": {"tenant": 7}, "tasks": [task]})
    await client.wait(submitted.plan_id)
    return await client.task(submitted.plan_id, "t")


async def test_typed_input_becomes_typed_output_with_tokens_added_up(client: Client) -> None:
    done = await run(client, "kit_plain", {"text": "a b", "times": 2})
    assert done.status == "COMPLETED", done
    assert done.output == {"words": ["a", "b"] * 2, "key": f"{done.plan_id}/t"}
    (execution,) = done.executions
    assert execution["model_name"] == "small"
    assert execution["token_usage"] == {
        "input_tokens": 7, "output_tokens": 2, "total_tokens": 9, "cached_tokens": 1,
        "reasoning_tokens": 1,
    }  # fmt: skip


async def test_progress_is_complete_and_before_the_result(client: Client) -> None:
    submitted = await client.submit(
        {"tasks": [{"id": "t", "kind": "kit_plain", "input": {"text": "un deux trois"}}]}
    )
    told = [event async for event in client.events(submitted.plan_id)]
    types = [event.type for event in told if isinstance(event, Event)]
    shown = [
        event.data["data"]
        for event in told
        if isinstance(event, Event) and event.type == "task.progress"
    ]
    assert "".join(each.get("text", "") for each in shown) == "un deux trois "
    assert {"half": True} in shown
    assert types.index("task.completed") > max(
        place for place, name in enumerate(types) if name == "task.progress"
    )


async def test_retry_asks_for_another_attempt_after_its_own_pause(client: Client) -> None:
    done = await run(client, "kit_async", {"text": "x"})
    assert done.output == {"text": "x", "retry": 1, "context": {"tenant": 7}}
    first = min(done.executions, key=lambda each: each["attempt"])
    assert (first["error_type"], first["error_message"]) == ("rate_limited", "the provider is busy")
    assert first["token_usage"]["total_tokens"] == 2


@pytest.mark.parametrize(
    ("kind", "task_input", "error_type", "words"),
    [
        ("kit_fatal", None, "bad_input", "this will never work"),
        ("kit_no_json", None, "bad_output", "cannot be stored"),
        ("kit_exits", None, "handler_error", "SystemExit"),
        ("kit_interrupts", None, "handler_error", "KeyboardInterrupt"),
        ("kit_spawns", None, "handler_error", "no growing plans yet"),
    ],
)
async def test_a_handler_that_breaks_ends_its_own_attempt_only(
    client: Client, kind: str, task_input: object, error_type: str, words: str
) -> None:
    failed = await run(client, kind, task_input, max_retries=0)
    assert failed.status == "FAILED"
    assert failed.error_type == error_type
    assert words in failed.error_message


@pytest.mark.parametrize("kind", ["kit_times_out", "kit_times_out_async"])
async def test_a_handler_is_stopped_at_its_time_out(client: Client, kind: str) -> None:
    failed = await run(client, kind, timeout_s=0.3, max_retries=0)
    assert (failed.status, failed.error_type) == ("FAILED", "timeout")


async def test_a_critic_gives_a_verdict(client: Client) -> None:
    tasks = [
        {"id": "draft", "kind": "kit_untyped", "input": [1]},
        {"id": "t", "kind": "kit_judges", "type": "critic", "depends_on": ["draft"]},
    ]
    submitted = await client.submit({"tasks": tasks})
    plan = await client.wait(submitted.plan_id)
    assert (plan.status, plan.task("draft").output) == ("COMPLETED", [1])


async def test_steps_answer_in_the_first_attempt_what_a_later_one_would_get(client: Client) -> None:
    done = await run(client, "kit_steps")
    assert done.output == ["hello", [1, 2], True]


@pytest.mark.parametrize("kind", ["kit_resumes", "kit_resumes_plain"])
async def test_a_later_attempt_finds_steps_and_checkpoints(client: Client, kind: str) -> None:
    done = await run(client, kind)
    assert (done.status, done.output) == ("COMPLETED", [1, {"attempt": 1}])
    spent = [each["token_usage"] for each in done.executions]
    assert [(each["input_tokens"], each["output_tokens"]) for each in spent] == [(3, 3), (3, 3)]


async def test_a_checkpoint_that_is_too_large_fails_and_says_what_to_do(client: Client) -> None:
    failed = await run(client, "kit_keeps_too_much")
    assert (failed.status, failed.error_type) == ("FAILED", "too_large")
    assert "keep large values elsewhere" in failed.error_message
