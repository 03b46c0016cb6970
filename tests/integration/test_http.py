"""The whole way: HTTP over a socket, the real core, the real log."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from service.app import Instance
from service.http.problems import PROBLEM_TYPE
from service.http.server import PortBusy
from service.http.strict_json import MAX_BODY_BYTES
from streams.log import Fact
from tests.busy import stretch
from tests.integration.http_world import serving, until_status

Pair = tuple[Instance, httpx.AsyncClient]


@pytest_asyncio.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with serving(tmp_path) as pair:
        yield pair


async def submit(client: httpx.AsyncClient, plan_id: str, *tasks: dict[str, Any]) -> int:
    body = {"id": plan_id, "tasks": [{"kind": "outside"} | task for task in tasks]}
    answer = await client.post("/v1/plans", json=body)
    assert answer.status_code == 201, answer.text
    return int(answer.json()["sequence"])


async def claim(client: httpx.AsyncClient, owner: str = "w1", **more: object) -> dict[str, Any]:
    answer = await client.post("/v1/claims", json={"owner": owner, "wait_s": 5, **more})
    (found,) = answer.json()["claims"]
    return dict(found)


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == PROBLEM_TYPE
    assert answer.json()["status"] == answer.status_code
    return answer.status_code, answer.json()["code"]


async def test_a_task_lives_from_submit_to_complete(pair: Pair) -> None:
    _, client = pair
    sequence = await submit(client, "p", {"id": "a", "input": {"x": [1, 2]}})
    found = await claim(client)
    assert found["fencing_token"] > sequence
    assert found["input"] == {"x": [1, 2]}
    here, who = "/v1/plans/p/tasks/a", {"owner": "w1", "attempt": 1}
    assert (await client.post(f"{here}/start", json=who)).json()["status"] == "accepted"
    renewed = (await client.post(f"{here}/heartbeat", json=who | {"progress": 0.5})).json()
    assert renewed["cancel_requested"] is False
    done = await client.post(f"{here}/complete", json=who | {"output": {"y": 3}})
    again = await client.post(f"{here}/complete", json=who | {"output": {"y": 3}})
    assert (done.json()["status"], again.json()["status"]) == ("accepted", "duplicate")
    await until_status(client, "/v1/plans/p", "COMPLETED")
    task = (await client.get(here, params={"min_sequence": done.json()["sequence"]})).json()
    assert task["output"] == {"y": 3}
    assert [execution["status"] for execution in task["executions"]] == ["completed"]
    plan = (await client.get("/v1/plans/p")).json()
    assert [each["task_id"] for each in plan["tasks"]] == ["a"]


async def test_many_at_once(pair: Pair) -> None:
    _, client = pair
    await submit(client, "p", *({"id": f"t{n}"} for n in range(60)))
    body = {"owner": "w1", "limit": 50}
    claims = (await client.post("/v1/claims", json=body)).json()["claims"]
    assert len(claims) == 50
    leases = [{key: each[key] for key in ("plan_id", "task_id", "attempt")} for each in claims]
    renewed = await client.post("/v1/heartbeats", json={"owner": "w1", "leases": leases})
    assert {each["status"] for each in renewed.json()["results"]} == {"accepted"}
    wrong = leases[0] | {"attempt": 7}
    unknown = leases[0] | {"task_id": "nothing"}
    for asked, expected in (
        (leases, ["accepted"] * 50),
        ([wrong, *leases[1:], unknown], ["guard_reject", *["duplicate"] * 49, "not_found"]),
    ):
        results = [lease | {"outcome": "completed"} for lease in asked]
        said = (await client.post("/v1/results", json={"owner": "w1", "results": results})).json()
        assert [each["status"] for each in said["results"]] == expected
    assert said["results"][0]["current"]["status"] == "COMPLETED"


async def test_lists_are_paged_and_filtered(pair: Pair) -> None:
    _, client = pair
    for n in range(3):
        await submit(client, f"p{n}", {"id": "a"}, {"id": "b", "kind": "other"})
    first = (await client.get("/v1/plans", params={"limit": 2})).json()
    second = (await client.get("/v1/plans", params={"limit": 2, "after": first["next"]})).json()
    shown = [plan["plan_id"] for plan in first["items"] + second["items"]]
    assert (shown, second["next"]) == (["p2", "p1", "p0"], None)
    found = (await client.get("/v1/tasks", params={"kind": "other", "plan_id": "p1"})).json()
    assert [(task["plan_id"], task["task_id"]) for task in found["items"]] == [("p1", "b")]
    assert (await client.get("/v1/executions")).json() == {"items": [], "next": None}
    assert (await client.get("/v1/audit")).status_code == 200


async def test_every_refusal_of_the_state_is_real(pair: Pair) -> None:
    _, client = pair
    await submit(client, "p", {"id": "a"})
    who = {"owner": "w1", "attempt": 1}
    task = "/v1/plans/p/tasks/a"
    early = await client.post(f"{task}/start", json=who)
    assert problem(early) == (409, "guard_reject")
    assert early.json()["current"] == {"status": "READY", "owner": None, "attempt": 0}
    await claim(client)
    stranger = await client.post(f"{task}/complete", json={"owner": "w2", "attempt": 1})
    assert problem(stranger) == (409, "guard_reject")
    assert stranger.json()["current"] == {"status": "RUNNING", "owner": "w1", "attempt": 1}
    verdict = await client.post(f"{task}/complete", json=who | {"verdict": {"pass": True}})
    assert problem(verdict) == (400, "invalid_request")
    assert problem(await client.post(f"{task}/retry", json={})) == (409, "not_allowed")
    taken = {"id": "p", "tasks": [{"id": "b", "kind": "x"}]}
    assert problem(await client.post("/v1/plans", json=taken)) == (409, "plan_exists")
    assert problem(await client.post("/v1/plans/q/pause", json={})) == (404, "not_found")
    assert problem(await client.get("/v1/plans/q")) == (404, "not_found")
    assert problem(await client.get("/v1/plans/p/tasks/z")) == (404, "not_found")
    assert problem(await client.post("/v1/plans/p/tasks/z/start", json=who)) == (404, "not_found")
    assert problem(await client.get("/v1/plans?after=zzz")) == (400, "invalid_request")
    assert problem(await client.get("/v1/plans/q/events")) == (404, "not_found")
    assert (await client.post("/v1/plans/p/cancel", json={})).json()["status"] == "CANCELLED"
    assert (await client.post("/v1/plans/p/cancel", json={})).json()["status"] == "CANCELLED"
    resumed = await client.post("/v1/plans/p/resume", json={})
    assert problem(resumed) == (409, "not_allowed")
    assert resumed.json()["current"] == {"status": "CANCELLED"}


async def test_failed_tasks_are_retried_one_by_one_or_all_and_finished_is_written_once_per_run(
    pair: Pair,
) -> None:
    instance, client = pair
    await submit(client, "p", {"id": "a"}, {"id": "b"})
    for _ in range(2):  # together, or the failure of the first would skip the second
        assert await claim(client)
    for task_id in "ab":
        await client.post(
            f"/v1/plans/p/tasks/{task_id}/fail",
            json={"owner": "w1", "attempt": 1, "error_type": "x", "retryable": False},
        )
    await eventually_finished(client, "FAILED")
    retried = await client.post("/v1/plans/p/tasks/a/retry", json={})
    assert (retried.status_code, retried.json()["status"]) == (200, "READY")
    again = await client.post("/v1/plans/p/tasks/a/retry", json={})
    assert problem(again) == (409, "not_allowed")
    assert "'a' is READY" in again.json()["detail"]
    assert await claim(client)
    done = await client.post("/v1/plans/p/tasks/a/complete", json={"owner": "w1", "attempt": 2})
    assert done.json()["status"] == "accepted"
    await eventually_finished(client, "FAILED")
    everything = await client.post("/v1/plans/p/retry", json={"reason": "mended"})
    assert everything.json()["counts"]["READY"] == 1
    assert problem(await client.post("/v1/plans/p/retry", json={})) == (409, "not_allowed")
    facts = await instance.core.log.read("p")
    names = [type(fact.event).__name__ for fact in facts if isinstance(fact, Fact)]
    assert names.count("Finished") == names.count("Retried") == 2


async def eventually_finished(client: httpx.AsyncClient, status: str) -> None:
    async with asyncio.timeout(20):
        while True:
            plan = (await client.get("/v1/plans/p")).json()
            if plan["finished_at"] is not None:
                assert plan["status"] == status
                return
            await asyncio.sleep(0.02)


async def test_an_owner_says_when_a_task_that_it_gives_back_is_offered_again(pair: Pair) -> None:
    _, client = pair
    await submit(client, "p", {"id": "a"})
    await claim(client)
    who = {"owner": "w1", "attempt": 1}
    answer = await client.post("/v1/plans/p/tasks/a/release", json=who | {"retry_in_s": 60})
    assert answer.json()["task"]["status"] == "READY"
    assert (await client.post("/v1/claims", json={"owner": "w2"})).json() == {"claims": []}
    bad = await client.post("/v1/plans/p/tasks/a/release", json=who | {"retry_in_s": -1})
    assert problem(bad) == (400, "invalid_request")


async def test_a_plan_of_many_tasks_is_sent_whole(pair: Pair) -> None:
    """More tasks than are encoded in one go, and a field that the plan does not have."""
    _, client = pair
    tasks = [{"id": f"t{number}", "kind": "outside"} for number in range(450)]
    assert (await client.post("/v1/plans", json={"id": "many", "tasks": tasks})).status_code == 201
    answer = await client.get("/v1/plans/many")
    assert answer.status_code == 200
    assert [task["task_id"] for task in answer.json()["tasks"]] == [each["id"] for each in tasks]
    assert "unreadable" not in answer.json()


async def test_a_cycle_is_shown(pair: Pair) -> None:
    _, client = pair
    tasks = [
        {"id": "a", "kind": "x", "depends_on": ["b"]},
        {"id": "b", "kind": "x", "depends_on": ["a"]},
    ]
    answer = await client.post("/v1/plans", json={"tasks": tasks})
    assert problem(answer) == (400, "invalid_request")
    assert "a → b → a" in answer.json()["detail"] or "b → a → b" in answer.json()["detail"]


async def test_a_read_that_is_ahead_gets_the_sequence_that_was_reached(pair: Pair) -> None:
    instance, client = pair
    sequence = await submit(client, "p", {"id": "a"})
    began = asyncio.get_running_loop().time()
    answer = await client.get("/v1/plans", params={"min_sequence": sequence + 1_000})
    assert problem(answer) == (503, "behind")
    assert answer.json()["sequence"] >= sequence
    assert 4 < asyncio.get_running_loop().time() - began < 8 * stretch()
    assert (await client.get("/v1/plans", params={"min_sequence": sequence})).status_code == 200
    assert instance.http_url


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_byte_too_many_is_refused_on_the_wire(pair: Pair, *, chunked: bool) -> None:
    _, client = pair

    async def parts(size: int) -> AsyncIterator[bytes]:
        for start in range(0, size, 100_000):
            yield b" " * min(100_000, size - start)

    headers = {"content-type": "application/json"}
    for size, code in ((MAX_BODY_BYTES + 1, "too_large"), (MAX_BODY_BYTES, "invalid_request")):
        content = parts(size) if chunked else b" " * size
        answer = await client.post("/v1/plans", content=content, headers=headers)
        assert answer.json()["code"] == code
    assert (await client.get("/healthz")).status_code == 200


async def test_a_fact_too_large_for_the_log_is_refused(pair: Pair) -> None:
    _, client = pair
    pad = "x" * (MAX_BODY_BYTES - 100)
    body = {"id": "p", "context": pad, "tasks": [{"id": "a", "kind": "x"}]}
    answer = await client.post("/v1/plans", json=body)
    assert answer.status_code in {201, 413}
    if answer.status_code == 413:
        assert problem(answer) == (413, "too_large")


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"POST /v1/plans HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/plans HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: bad host\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X-A: " + b"a" * 100_000 + b"\r\n\r\n",
    ],
)
async def test_a_broken_request_is_a_400_and_the_server_goes_on(pair: Pair, raw: bytes) -> None:
    instance, client = pair
    host, _, port = instance.http_url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(raw)
    with suppress(ConnectionError):
        await writer.drain()
        first = await asyncio.wait_for(reader.readline(), 5)
        assert first.split()[1:2] != [b"500"]
    writer.close()
    assert (await client.get("/healthz")).status_code == 200


async def test_a_worker_that_hangs_up_leaves_its_task_to_others(pair: Pair) -> None:
    instance, client = pair
    host, _, port = instance.http_url.removeprefix("http://").rpartition(":")
    body = b'{"owner":"gone","wait_s":30}'
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /v1/claims HTTP/1.1\r\nHost: localhost:%b\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (port.encode(), len(body), body)
    )
    await writer.drain()
    polls = "/actuator/metrics/agent.task.claim.poll.total"
    async with asyncio.timeout(20):
        while (await client.get(polls)).json()["values"][0]["value"] < 1:
            await asyncio.sleep(0.01)
    writer.transport.abort()
    await submit(client, "p", {"id": "a"})
    assert (await claim(client, "here"))["attempt"] in {1, 2}


async def test_the_log_in_trouble_is_a_503_and_heals(pair: Pair) -> None:
    instance, client = pair
    await submit(client, "p", {"id": "a"})
    await instance.core.log.close()
    body = {"id": "q", "tasks": [{"id": "a", "kind": "x"}]}
    answer = await client.post("/v1/plans", json=body)
    assert problem(answer) == (503, "log_unavailable")
    assert answer.headers["retry-after"]
    assert (await client.get("/v1/plans/p")).status_code == 200


async def test_status_and_readiness(pair: Pair) -> None:
    instance, client = pair
    status = (await client.get("/v1/ops/status")).json()
    assert status["instance"] == instance.core.instance_id
    assert set(status["roles"]) == {"api", "executor", "daemons"}
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()["failing"]) == (200, [])


async def test_a_port_that_is_taken_is_named_with_its_setting(pair: Pair, tmp_path: Path) -> None:
    instance, _ = pair
    port = int(instance.http_url.rpartition(":")[2])
    with pytest.raises(PortBusy, match=rf"{port}.*http\.port.*HOLDFAST_HTTP__PORT"):
        async with serving(tmp_path / "other", http__port=port):
            pass


async def test_the_page_is_sent_once_and_then_confirmed(pair: Pair) -> None:
    _, client = pair
    page = await client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    again = await client.get("/", headers={"If-None-Match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    script = await client.get("/page/main.js")
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    for outside in (
        "/page/../page.py",
        "/page/%2e%2e/page.py",
        "/page/vendor/preact.d.ts",
        "/page/x",
    ):
        assert problem(await client.get(outside)) == (404, "not_found")


async def test_the_page_can_be_turned_off(tmp_path: Path) -> None:
    async with serving(tmp_path, ui__enabled=False) as (_, client):
        assert problem(await client.get("/")) == (404, "not_found")


async def test_a_path_prefix_may_be_cut_off_by_the_proxy_or_not(tmp_path: Path) -> None:
    async with serving(tmp_path, http__root_path="/tools/holdfast") as (_, client):
        await submit(client, "p", {"id": "a"})
        for path in ("/v1/plans/p", "/tools/holdfast/v1/plans/p"):
            assert (await client.get(path)).json()["plan_id"] == "p"
        page = await client.get("/tools/holdfast/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert 'src="page/main.js"' in page.text  # what the page loads is relative
        assert problem(await client.get("/tools/holdfastv1/plans/p")) == (404, "not_found")
