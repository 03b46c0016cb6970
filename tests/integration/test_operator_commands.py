"""The operator's commands against a real instance: what they print, what they do, how they end."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from service.cli.main import main
from tests.faults.service_process import run_holdfast
from tests.integration.http_world import serving


@pytest_asyncio.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(tmp_path) as (_, client):
        tasks = [{"id": "a", "kind": "outside"}, {"id": "b", "kind": "ecko"}]
        body = {"id": "p", "name": "a plan", "tasks": tasks}
        assert (await client.post("/v1/plans", json=body)).status_code == 201
        yield client


async def holdfast(client: httpx.AsyncClient, *arguments: str) -> tuple[int, str]:
    """One command to its end, in a process of its own."""
    url = str(client.base_url)
    return await asyncio.to_thread(run_holdfast, *arguments, "--url", url)


async def test_what_is_there_is_shown_as_a_table(client: httpx.AsyncClient) -> None:
    code, said = await holdfast(client, "plans")
    assert (code, said.split()[:5]) == (0, ["PLAN", "STATUS", "TASKS", "SUBMITTED", "NAME"])
    assert "\x1b" not in said  # a pipe gets no colours
    code, said = await holdfast(client, "show", "p")
    assert code == 0
    assert "0/2" in said
    assert any(line.split()[:3] == ["b", "READY", "ecko"] for line in said.splitlines())


async def test_json_is_one_value_for_programs(client: httpx.AsyncClient) -> None:
    code, said = await holdfast(client, "show", "p/a", "--json")
    assert (code, json.loads(said)["task_id"]) == (0, "a")
    code, said = await holdfast(client, "plans", "--json")
    assert [json.loads(line)["plan_id"] for line in said.splitlines()] == ["p"]


async def test_why_names_the_reason_and_what_is_next(client: httpx.AsyncClient) -> None:
    code, said = await holdfast(client, "why", "p/b")
    assert code == 0
    assert "no worker has asked for kind 'ecko'; did you mean 'echo'?" in said
    assert "no_worker (sequence 1)" in said
    assert "next: start a worker for this kind" in said


async def test_actions_are_done_with_their_reason(client: httpx.AsyncClient) -> None:
    code, said = await holdfast(client, "pause", "p", "--reason", "lunch")
    assert (code, said.startswith("p is PAUSED")) == (0, True)
    assert (await holdfast(client, "resume", "p"))[0] == 0
    assert (await holdfast(client, "cancel", "p"))[0] == 0
    code, said = await holdfast(client, "retry", "p/a")
    assert (code, "not_allowed" in said) == (1, True)
    async with asyncio.timeout(20):
        while "lunch" not in (await holdfast(client, "audit", "--plan", "p"))[1]:
            await asyncio.sleep(0.1)


async def test_workers_and_top_show_who_holds_what(client: httpx.AsyncClient) -> None:
    body = {"owner": "w1", "kinds": ["outside"], "wait_s": 5}
    await client.post("/v1/claims", json=body)
    code, said = await holdfast(client, "workers")
    (row,) = [line.split() for line in said.splitlines() if line.startswith("w1")]
    assert (code, row[:3]) == (0, ["w1", "outside", "1"])
    code, said = await holdfast(client, "top", "--once")
    assert code == 0
    assert "running 1" in said


async def test_what_is_not_there_is_1_and_what_cannot_be_reached_is_3(
    client: httpx.AsyncClient,
) -> None:
    assert (await holdfast(client, "show", "nothing"))[0] == 1
    assert (await holdfast(client, "why", "p/nothing"))[0] == 1
    assert (await holdfast(client, "show", "a b"))[0] == 2
    code, said = await asyncio.to_thread(run_holdfast, "plans", "--url", "http://127.0.0.1:1")
    assert (code, said.count("\n")) == (3, 1)


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [
        (("show", "pp"), 1, "there is no plan 'pp'; did you mean 'p'?"),
        (("why", "anothr"), 1, "there is no plan 'anothr'; did you mean 'another-plan'?"),
        (("pause", "p/a"), 2, "pause is for plans: holdfast pause p"),
        (("retry", "p/aa"), 1, "plan 'p' has no task 'aa'; did you mean 'a'?"),
        (("shwo", "p"), 2, "No such command 'shwo'. Did you mean 'show'?"),
        (("events", "--plan", "nothing"), 1, "there is no plan 'nothing'"),
    ],
)
async def test_a_slip_is_named_with_what_may_be_meant(
    client: httpx.AsyncClient,
    capsys: pytest.CaptureFixture[str],
    asked: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    tasks = [{"id": "a", "kind": "outside"}]
    await client.post("/v1/plans", json={"id": "another-plan", "tasks": tasks})
    url = str(client.base_url)
    assert await asyncio.to_thread(main, [*asked, "--url", url]) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "--url: 'nonsense' is no http://HOST:PORT"),
        ("localhost:8000", "--url: 'localhost:8000' is no http://HOST:PORT"),
        ("{}/v1", "there is no Holdfast here (/v1/plans is not found)"),
    ],
)
async def test_a_wrong_url_is_asked_wrongly(
    client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str], url: str, said: str
) -> None:
    given = url.format(str(client.base_url).rstrip("/"))
    assert await asyncio.to_thread(main, ["plans", "--url", given]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("token", ["ä", "two words", "a\nline", "\x1b[31m"])
@pytest.mark.parametrize("command", ["plans", "events", "why"])
async def test_what_cannot_be_a_token_is_refused_before_it_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, token: str
) -> None:
    given = [command, "p"] if command == "why" else [command]
    url = ("--url", "http://127.0.0.1:1")
    assert await asyncio.to_thread(main, [*given, *url, "--token", token]) == 2
    (tmp_path / "token").write_text(token)
    file = str(tmp_path / "token")
    assert await asyncio.to_thread(main, [*given, *url, "--token-file", file]) == 2
    said = capsys.readouterr().err
    assert said.count("this is no token: it must be ASCII without spaces") == 2
    assert token not in said


async def test_url_and_token_may_stand_in_the_environment(
    client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is a setting, which every command reads that is given no --url."""
    monkeypatch.setenv("HOLDFAST_URL", str(client.base_url))
    monkeypatch.setenv("HOLDFAST_TOKEN", "any")
    assert await asyncio.to_thread(main, ["show", "p"]) == 0
    assert "0/2" in capsys.readouterr().out
    assert await asyncio.to_thread(main, ["check-config"]) == 0
    assert "HOLDFAST_TOKEN" not in capsys.readouterr().out


async def test_a_sequence_is_named_once_by_why(client: httpx.AsyncClient) -> None:
    await client.post("/v1/plans/p/cancel", json={})
    for what in ("p", "p/a"):
        code, said = await holdfast(client, "why", what)
        assert code == 0
        for told in re.findall(r"sequences? ([\d, ]+)", said):
            numbers = told.strip(", ").split(", ")
            assert len(numbers) == len(set(numbers)), said
