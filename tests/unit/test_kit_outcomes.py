"""What a handler takes, returns and raises, and what of it is reported and logged."""

import json
import logging
from typing import Any

import pytest
from msgspec import Raw

from holdfast_worker import (
    AsyncTask,
    AttemptFilter,
    Fatal,
    Result,
    Retry,
    Task,
    TaskFailed,
    Unsupported,
    handler,
)
from holdfast_worker.cancellation import Cancellation
from holdfast_worker.task import Assignment
from tests.unit.kit_world import (
    ScriptedServer,
    claim,
    ended,
)
from tests.waiting import until


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Retry("wait", after_s=3), {"retry_in_s": 3, "error_type": "handler_error"}),
        (Fatal("no", error_type="bad_input"), {"retryable": False, "error_type": "bad_input"}),
        (TimeoutError(), {"error_type": "timeout"}),
        (TaskFailed("rate_limited", "x", model_name="m"), {"model_name": "m"}),
        (GeneratorExit(), {"error_type": "handler_error"}),
        (Unsupported("x"), {"retryable": False}),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_a_handler_raises_is_reported(error: BaseException, said: dict[str, Any]) -> None:
    def work(_: Task) -> None:
        raise error

    with ScriptedServer(claim()) as server:
        (result,) = ended(server, work)
    assert {name: result.get(name) for name in said} == said


def test_why_an_attempt_failed_stands_in_the_log_of_its_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def divides(task: Task) -> float:
        return 1 / (task.attempt - 1)

    def refuses(_: Task) -> None:
        raise Fatal("no such customer")

    def returns(task: Task) -> object:
        return task

    for work, said in (
        (divides, ("p/t#1: handler_error: Traceback", "return 1 / (task.attempt - 1)")),
        (refuses, ("p/t#1: handler_error: no such customer",)),
        (returns, ("p/t#1: bad_output: the handler returned what cannot be stored", "'Task'")),
    ):
        caplog.clear()
        with ScriptedServer(claim()) as server:
            ended(server, work)
        for each in said:
            until(lambda each=each: each in caplog.text, what=f"{each!r} in {caplog.text}")
        assert ("Traceback" in caplog.text) is (work is divides)


def test_an_input_of_another_type_fails_and_the_message_names_both() -> None:
    def work(_: Task, words: list[int]) -> int:
        return len(words)

    with ScriptedServer(claim(input={"n": 1})) as server:
        (result,) = ended(server, work)
    assert (result["error_type"], result["retryable"]) == ("bad_input", False)
    assert result["error_message"] == "the input is no list[int]: Expected `array`, got `object`"


def test_tokens_go_out_with_a_failure_too() -> None:
    def work(task: Task) -> None:
        task.token_usage("m", input=3, output=4)
        raise Retry

    with ScriptedServer(claim()) as server:
        (result,) = ended(server, work)
    assert (result["model_name"], result["token_usage"]["total_tokens"]) == ("m", 7)


class Model:
    """As pydantic's models behave, for the kit."""

    def __init__(self, n: int) -> None:
        self.n = n

    @classmethod
    def model_validate_json(cls, data: bytes) -> "Model":
        return cls(json.loads(data)["n"])

    def model_dump(self, *, mode: str) -> dict[str, int]:
        assert mode == "json"
        return {"n": self.n}


def test_pydantic_models_come_in_and_go_out() -> None:
    def work(_: Task, given: Model) -> Model:
        return Model(given.n + 1)

    with ScriptedServer(claim()) as server:
        (result,) = ended(server, work)
    assert result["output"] == {"n": 4}


async def _coroutine(task: AsyncTask) -> str:
    logging.getLogger("a library").warning("inside")
    task.log.warning("by itself")
    return "x"


def test_log_lines_of_a_task_bear_its_attempt(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(AttemptFilter())
    with ScriptedServer(claim()) as server:
        ended(server, _coroutine)
    lines = {record.message: vars(record) for record in caplog.records}
    for message in ("inside", "by itself"):
        assert lines[message]["attempt_key"] == "[p/t#1] "
        assert lines[message]["plan_id"] == "p"


def test_a_handler_can_be_called_in_a_test_without_any_server() -> None:
    assignment = Assignment(
        plan_id="p", task_id="t", kind="k", type="critic", attempt=1, fencing_token=1, retry=0,
        timeout_s=1, input=Raw(b"1"), context=Raw(b"{}"), dependencies={}, feedback=Raw(b"null"),
    )  # fmt: skip

    @handler("k")
    def work(task: Task, number: int) -> Result:
        return Result(number, verdict={"pass": task.attempt == 1})

    assert work(Task(assignment, Cancellation(), lambda _: None), 5).output == 5
