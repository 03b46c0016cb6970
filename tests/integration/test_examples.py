"""The examples do what they show, with a fake model and a real server."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples import agent_loop, fan_out_critic, first_worker, map_reduce
from examples.model import NO_MODEL
from holdfast_worker import Client, Worker
from holdfast_worker.testing import Server
from tests.faults.service_process import ROOT
from tests.integration.fake_model import FakeModel, Message

PAGE_LINES = 70
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture(autouse=True)
def place(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the examples look for Holdfast."""
    monkeypatch.setenv("HOLDFAST_URL", server.url)


def last(messages: list[Message]) -> str:
    return str(messages[-1]["content"])


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_at_most_a_page(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= PAGE_LINES


def test_the_first_example_has_at_most_fifteen_lines() -> None:
    text = (ROOT / "examples" / "first_worker.py").read_text()
    assert len([line for line in text.splitlines() if line]) <= 15


async def test_a_first_worker() -> None:
    with first_worker.worker:
        async with Client() as client:
            task = {"id": "t", "kind": "count_words", "input": "one two three"}
            submitted = await client.submit({"tasks": [task]})
            plan = await client.wait(submitted.plan_id)
    assert plan.task("t").output == {"words": 3}


async def test_an_agent_calls_its_tool_and_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def rule(messages: list[Message]) -> Message:
        if messages[-1]["role"] == "tool":
            return {"content": f"I found: {last(messages)}"}
        arguments = '{"subject": "sea"}'
        call = {"id": "c1", "function": {"name": "search", "arguments": arguments}}
        return {"content": None, "tool_calls": [call]}

    with FakeModel(rule, busy=1) as model, agent_loop.worker:
        monkeypatch.setenv("MODEL_URL", model.url)
        answer = await agent_loop.ask("How fast?")
    assert answer == "I found: sea: the sea level rises by 4 mm per year"
    assert list(model.calls.values()) == [1, 1]


@pytest.mark.parametrize("name", ["agent_loop", "fan_out_critic", "map_reduce", "resume"])
def test_a_program_that_needs_a_model_asks_for_it(name: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", f"examples.{name}"],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if key != "MODEL_URL"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr.strip()) == (1, "", NO_MODEL)


async def test_an_answer_that_cannot_be_had_is_replaced_by_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MODEL_URL", raising=False)
    worker = Worker("no-model", slots=8)
    worker.include(agent_loop.agent, fan_out_critic.draft)
    with worker:
        answers = await agent_loop.ask("How fast?"), await fan_out_critic.write("lighthouses")
    for answer in answers:
        assert "set MODEL_URL to" in answer


async def test_a_critic_sends_a_text_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def rule(messages: list[Message]) -> Message:
        said = last(messages)
        if said.startswith("Answer PASS"):
            return {"content": "PASS" if "mended" in said else "too long"}
        if said.startswith("A reader said: too long"):
            return {"content": "a mended text"}
        return {"content": f"text of [{said[:20]}]"}

    with FakeModel(rule) as model, fan_out_critic.worker:
        monkeypatch.setenv("MODEL_URL", model.url)
        text = await fan_out_critic.write("lighthouses")
    assert text == "a mended text"
    assert sum(model.calls.values()) == 3 + 2 + 2  # drafts, texts, verdicts


async def test_a_map_over_documents_survives_one_that_is_empty(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = {f"doc{number}": f"Text {number}." for number in range(8)} | {"empty": ""}
    with (
        FakeModel(lambda messages: {"content": last(messages).splitlines()[-1]}) as model,
        map_reduce.worker,
    ):
        monkeypatch.setenv("MODEL_URL", model.url)
        answer = await map_reduce.read(documents)
    assert answer == "Text 7."
    assert sum(model.calls.values()) == len(documents)
    assert capsys.readouterr().out.count("read ") == len(documents)
