"""Inputs of tasks are checked when their plan is submitted, so that nothing mistyped is stored."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from service.executor.handlers.inputs import input_check
from service.executor.handlers.registry import load_handlers
from service.settings.config import ExecutorSettings
from streams.plan.events import TaskSpec
from tests.integration.http_world import serving, until_status

ROOT = Path(__file__).parents[2]
TALK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ASK = {"base_url": "http://127.0.0.1:9/v1", **TALK}
SETTINGS = msgspec.convert(
    {
        "command": {"words": {"argv": ["wc", "-w", "--", "{file}"]}},
        "chat": {"endpoints": {"openai": {"base_url": "https://api.openai.com/v1"}}},
    },
    ExecutorSettings,
)
POST = {"url": "http://127.0.0.1:9/"}

MISTAKES: list[tuple[str, object, str]] = [
    ("sleep", {}, "seconds"),
    ("sleep", {"seconds": "1"}, "input.seconds"),
    ("sleep", {"seconds": -1}, "input.seconds"),
    ("sleep", {"seconds": 1, "second": 1}, "second"),
    ("sleep", None, "object"),
    ("command", {"parameters": {"file": "x"}}, "command"),
    ("command", {"command": "words", "parameters": "x"}, "input.parameters"),
    ("command", {"command": "words", "parameters": {"file": 1}}, "input.parameters"),
    ("command", {"command": "words", "parameters": {"file": "-x"}}, "input.parameters.file"),
    ("command", {"command": "rm"}, "input.command"),
    ("command", {"command": "words", "stdin": "x", "stdin_from": "dependencies"}, "stdin"),
    ("http", POST | {"headers": {"Authorization": {"value": "sk-1"}}}, "input.headers"),
    ("chat", {**TALK, "base_url": "http://127.0.0.1:9/v1"}, "input.base_url"),
    ("chat", {**TALK, "endpoint": "other"}, "input.endpoint"),
    ("chat", TALK, "endpoint"),
    ("http", POST | {"json": {}}, "json"),
    ("http", {"url": "ftp://127.0.0.1/"}, "url"),
    ("http", {"url": "http://"}, "url"),
    ("http", {"url": "http://:80/"}, "url"),
    ("http", {"url": "http://a b/"}, "url"),
    ("http", POST | {"headers": {"Holdfast_Attempt": "9"}}, "headers: 'Holdfast_Attempt'"),
    ("http", POST | {"headers": {"X-Mine": "a\r\nX-Other: b"}}, "headers: 'X-Mine'"),
    ("http", POST | {"headers": {"X-Mine": 1}}, "input.headers"),
    ("http", POST | {"read_timeout_s": 0}, "input.read_timeout_s"),
    ("chat", ASK | {"messages": []}, "input.messages"),
    ("chat", ASK | {"messages": [{"content": "hi"}]}, "messages[0]"),
    ("chat", ASK | {"base_url": "localhost:11434"}, "base_url"),
    ("chat", ASK | {"api_key_env": "AWS_SECRET_ACCESS_KEY"}, "api_key_env"),
    ("chat", ASK | {"params": {"stream": False}}, "params: stream"),
    ("chat", ASK | {"params": {"response_format": "json"}}, "params.response_format"),
    (
        "chat",
        ASK | {"params": {"response_format": {"type": "json_schema", "json_schema": {}}}},
        "params.response_format: json_schema.schema",
    ),
    (
        "chat",
        ASK | {"params": {"response_format": {
            "type": "json_schema", "json_schema": {"schema": {"type": "strin"}},
        }}},
        "params.response_format: json_schema.schema",
    ),
    ("chat", ASK | {"accept": "stop"}, "input.accept"),
    ("chat", ASK | {"accept": []}, "input.accept"),
    ("chat", ASK | {"temperature": 0}, "temperature"),
]  # fmt: skip


@pytest.fixture(scope="module")
def check() -> Any:
    return input_check(load_handlers(SETTINGS))


@pytest.mark.parametrize(("kind", "given", "field"), MISTAKES)
def test_a_mistake_is_named_with_its_task_and_field(
    check: Any, kind: str, given: object, field: str
) -> None:
    raw = msgspec.Raw(msgspec.json.encode(given))
    complaint = check(TaskSpec(id="wrong", kind=kind, input=raw))
    assert complaint is not None
    assert complaint.startswith(f"task 'wrong' of kind '{kind}': input")
    assert field in complaint
    assert "regex" not in complaint


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(tmp_path) as (_, client):
        yield client


async def test_a_plan_with_a_mistyped_input_is_refused_and_nothing_is_stored(
    client: httpx.AsyncClient,
) -> None:
    good = {"id": "good", "kind": "sleep", "input": {"seconds": 0}}
    wrong = {"id": "wrong", "kind": "sleep", "input": {"secs": 1}}
    answer = await client.post("/v1/plans", json={"id": "p", "tasks": [good, wrong]})
    assert answer.status_code == 400
    assert "task 'wrong' of kind 'sleep': input" in answer.json()["detail"]
    assert (await client.get("/v1/plans/p")).status_code == 404
    assert (await client.post("/v1/plans", json={"id": "p", "tasks": [good]})).status_code == 201


async def test_echo_and_kinds_of_workers_outside_take_anything(client: httpx.AsyncClient) -> None:
    inputs: list[object] = [None, 7, "x", [], {"secs": 1}]
    tasks = [
        {"id": f"{kind}-{number}", "kind": kind, "input": each}
        for kind in ("echo", "outside")
        for number, each in enumerate(inputs)
    ]
    assert (await client.post("/v1/plans", json={"id": "p", "tasks": tasks})).status_code == 201


async def test_a_plan_that_is_in_the_log_is_the_same_plan_whatever_is_checked_today(
    tmp_path: Path,
) -> None:
    plan = {"id": "p", "tasks": [{"id": "t", "kind": "sleep", "input": {"secs": 1}}]}
    async with serving(tmp_path) as (instance, client):
        checked, instance.core.admission.check_input = (
            instance.core.admission.check_input,
            lambda _: None,
        )
        assert (await client.post("/v1/plans", json=plan)).status_code == 201
        instance.core.admission.check_input = checked
        assert (await client.post("/v1/plans", json=plan)).status_code == 200
        await until_status(client, "/v1/plans/p", "FAILED")
        task = (await client.get("/v1/plans/p/tasks/t")).json()
    assert task["error_type"] == "bad_input", "it runs, and its handler says what is wrong"


EXAMPLE = re.compile(r"^\| `(\w+)` \|.*\| `(\{.*\})` \|$", re.MULTILINE)


def test_documented_inputs_are_accepted(check: Any) -> None:
    rows = EXAMPLE.findall((ROOT / "docs/howto/run-tasks.md").read_text())
    assert {kind for kind, _ in rows} == {"sleep", "command", "http", "chat"}
    for kind, example in rows:
        raw = msgspec.Raw(example.encode())
        assert check(TaskSpec(id="t", kind=kind, input=raw)) is None


async def test_a_plan_that_looks_like_holding_a_key_is_accepted_with_a_warning(
    client: httpx.AsyncClient,
) -> None:
    key = "sk-abcdefghijklmnopqrstuvwx"
    plan = {"id": "p", "tasks": [{"id": "t", "kind": "outside", "input": {"key": key}}]}
    first = await client.post("/v1/plans", json=plan)
    assert first.status_code == 201
    (warning,) = first.json()["warnings"]
    assert warning.startswith("task 't': input")
    assert key not in warning
    clean = {"id": "q", "tasks": [{"id": "t", "kind": "outside", "input": {"key": "value"}}]}
    assert "warnings" not in (await client.post("/v1/plans", json=clean)).json()
