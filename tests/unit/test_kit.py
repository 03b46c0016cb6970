"""The worker kit against a scripted server: repetition, older and newer servers, refusals."""

import importlib.metadata
import json
import re
import ssl
import threading
import tomllib
from collections import Counter
from typing import Any

import httpx
import pytest
from packaging.requirements import Requirement

from holdfast_worker import (
    Refused,
    Task,
    Worker,
)
from holdfast_worker.sse import messages
from holdfast_worker.wire import Wire
from tests.faults.service_process import ROOT
from tests.unit.kit_world import (
    NO_ROUTE,
    SHORT,
    Answer,
    Script,
    ScriptedServer,
    claim,
    ended,
    problem,
)
from tests.waiting import until


def first_times(path: str, times: int, answer: Answer) -> Script:
    """Answers the first ``times`` requests to ``path`` so."""
    count: Counter[str] = Counter()

    def script(asked: str, _: Any) -> Answer | None:
        count[asked] += 1
        return answer if asked == path and count[asked] <= times else None

    return script


def test_fields_of_a_newer_server_are_ignored() -> None:
    with ScriptedServer(claim()) as server:
        (result,) = ended(server, lambda task: task.input)
    assert result["output"] == {"n": 3}
    assert "/v1/owners/" in server.paths()[-1]
    assert "/v1/plans/p/tasks/t/start" not in server.paths()


@pytest.mark.parametrize("status", [0, 200, 429, 502, 503])  # 0: no answer; 200: a proxy's page
@pytest.mark.parametrize("path", ["/v1/claims", "/v1/results", "/v1/plans/p/tasks/t/start"])
def test_a_request_that_fails_for_the_moment_is_repeated(path: str, status: int) -> None:
    if status == 200 and path.endswith("start"):
        return  # its answer has nothing that is needed
    trouble = problem(status, "unavailable")
    script = first_times(path, 2, trouble)
    with ScriptedServer(claim(started=False), script=script) as server:
        worker_results = ended(server, lambda _: "done")
    assert server.paths().count(path) >= 3
    assert worker_results[-1]["output"] == "done"
    assert len({json.dumps(each) for each in worker_results}) == 1  # each time the same


def test_a_server_that_does_not_know_start_in_a_claim_gets_it_by_itself() -> None:
    def script(path: str, body: Any) -> Answer | None:
        if path == "/v1/claims" and "start" in body:
            return problem(400, "invalid_request", "Object contains unknown field `start`")
        return None

    with ScriptedServer(claim(started=False), script=script) as server:
        ended(server, lambda _: None)
    paths = server.paths()
    assert paths.index("/v1/plans/p/tasks/t/start") < paths.index("/v1/results")


def test_a_server_without_goodbye_is_asked_what_is_held_and_that_is_released() -> None:
    held = {"plan_id": "q", "task_id": "u", "status": "CLAIMED", "attempt": 2}

    def script(path: str, _: Any) -> Answer | None:
        if path.endswith("/goodbye"):
            return NO_ROUTE
        return (200, {"items": [held], "next": None}) if path.startswith("/v1/tasks?") else None

    with ScriptedServer(claim(), script=script) as server:
        ended(server, lambda _: None)
    path, body = server.seen[-1]
    assert (path, body["attempt"]) == ("/v1/plans/q/tasks/u/release", 2)


def test_a_worker_that_no_server_ever_answered_says_where_it_asked_and_ends_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with ScriptedServer(script=lambda _path, _body: (0, None)) as server:
        worker = Worker("unit", url=server.url, limits=SHORT)
        worker.task("k")(lambda _: None)
        with worker:
            until(lambda: len(server.paths()) > 2, what="it tries again")
        assert sum(path.endswith("/goodbye") for path in server.paths()) == 1
        assert f"{server.url} does not answer" in caplog.text
        assert "HOLDFAST_URL" in caplog.text


@pytest.mark.parametrize("url", ["localhost:8000", "127.0.0.1:8000", "http://", "http://x:y"])
def test_an_address_that_is_no_url_is_refused_at_once(url: str) -> None:
    worker = Worker("unit", url=url)
    worker.task("k")(lambda _: None)
    with pytest.raises(ValueError, match=re.escape(repr(url))):
        worker.start()


def test_a_function_that_cannot_be_a_handler_is_refused_where_it_is_declared() -> None:
    worker = Worker("unit")
    with pytest.raises(ValueError, match="the name of its kind"):
        worker.task(lambda _: None)  # pyright: ignore[reportArgumentType]
    functions: list[Any] = [lambda: 1, lambda _task, _input, _more: 1]
    for function in functions:
        with pytest.raises(TypeError, match="must take the task, or the task and its input"):
            worker.task("k")(function)


def test_requests_go_through_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer() as proxy, ScriptedServer() as local:
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "127.0.0.1")
        for url in ("http://ada:secret@holdfast.invalid/base", local.url):
            worker = Worker("unit", url=url, limits=SHORT)
            worker.task("k")(lambda _: None)
            with worker:
                until(lambda: proxy.seen and (local.seen or "ada" in url), what="it is asked")  # noqa: B023
        asked = "http://holdfast.invalid/base"
        assert all(path.startswith(f"{asked}/v1/") for path in proxy.paths())
        assert set(proxy.authorization) == {"Basic YWRhOnNlY3JldA=="}
        assert "/v1/claims" in local.paths()
        assert set(local.authorization) == {None}


@pytest.mark.parametrize(
    ("url", "proxy", "verified"),
    [
        ("http://holdfast.invalid", "", False),
        ("https://holdfast.invalid", "", True),
        ("http://holdfast.invalid", "http://proxy.invalid", False),
        ("http://holdfast.invalid", "https://proxy.invalid", True),
    ],
)
async def test_certificates_are_read_and_verified_where_tls_is_spoken(
    url: str, proxy: str, *, verified: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, proxy)
    contexts: list[ssl.SSLContext] = []
    create = ssl.create_default_context

    def created(*given: Any, **named: Any) -> ssl.SSLContext:
        contexts.append(create(*given, **named))
        return contexts[-1]

    monkeypatch.setattr(ssl, "create_default_context", created)
    await Wire(url, None, SHORT).close()
    modes = {each.verify_mode for each in contexts}
    assert modes == ({ssl.CERT_REQUIRED} if verified else set())


def test_a_worker_without_a_token_is_told_what_to_set() -> None:
    refused = problem(401, "unauthorized", "a bearer token is needed")
    with ScriptedServer(script=lambda _path, _body: refused) as server:
        worker = Worker("unit", url=server.url, limits=SHORT)
        worker.task("k")(lambda _: None)
        service = worker.start()
        until(service.over.is_set, what="it has given up")
        with pytest.raises(Refused, match="set HOLDFAST_TOKEN to the token of a worker"):
            worker.stop()


def test_a_result_that_does_not_fit_fails_alone_in_its_batch() -> None:
    def script(path: str, body: Any) -> Answer | None:
        if path == "/v1/results" and any(each.get("output") == "bad" for each in body["results"]):
            return problem(400, "invalid_request", "results[1].output: not so")
        return None

    claims = [claim(task_id=f"t{number}", input=number) for number in range(4)]
    with ScriptedServer(*claims, script=script) as server:
        results = ended(server, lambda task: "bad" if task.input == 1 else "good", results=4)
    final = {each["task_id"]: each for each in results if each.get("output") != "bad"}
    assert final["t1"]["error_type"] == "bad_output"
    assert "not so" in final["t1"]["error_message"]
    assert [final[f"t{number}"]["output"] for number in (0, 2, 3)] == ["good"] * 3


def knows_no_tokens_of_a_release(path: str, body: Any) -> Answer | None:
    if path == "/v1/results" and "token_usage" in body["results"][0]:
        return problem(400, "invalid_request", "Object contains unknown field `token_usage`")
    return None


def test_an_older_server_gets_a_release_without_its_tokens() -> None:
    began = threading.Event()
    with ScriptedServer(claim(), script=knows_no_tokens_of_a_release) as server:
        worker = Worker("unit", url=server.url, limits=SHORT)

        @worker.task("k")
        def work(task: Task) -> None:
            task.token_usage("m", input=3, output=4)
            began.set()
            task.cancelled.wait(30)
            task.raise_if_cancelled()

        worker.start()
        assert began.wait(30)
        worker.stop(0)
        full, bare = server.results()
    assert (full["outcome"], full["token_usage"]["total_tokens"]) == ("released", 7)
    assert (bare["outcome"], "token_usage" in bare) == ("released", False)
    assert (worker.counters.released, worker.counters.lost) == (1, 0)


def test_an_event_with_a_line_separator_in_it_stays_whole() -> None:
    text = "a\u2028b\u2029c\x85d"
    body = f"id: 5\nevent: task.progress\ndata: {json.dumps(text, ensure_ascii=False)}\n\n"
    answer = httpx.Response(
        200, headers={"Content-Type": "text/event-stream"}, content=body.encode()
    )
    (message,) = messages(answer)
    assert (message.id, message.name, json.loads(message.data)) == (5, "task.progress", text)


def test_installing_the_kit_brings_at_most_ten_packages() -> None:
    project = tomllib.loads((ROOT / "service/worker_kit/pyproject.toml").read_text())["project"]
    assert len(project["dependencies"]) == 3
    wanted, known = list(project["dependencies"]), {project["name"]}
    while wanted:
        need = Requirement(wanted.pop())
        name = re.sub(r"[-_.]+", "-", need.name).lower()
        if name in known or (need.marker is not None and not need.marker.evaluate({"extra": ""})):
            continue
        known.add(name)
        wanted += importlib.metadata.requires(name) or []
    assert len(known) <= 10, known
