"""Requests that fit reach the core as the right command, and its answers go back as API.md says."""

import asyncio
import json
import re
import threading
from typing import Any, cast

import httpx
import pytest
from litestar.testing import AsyncTestClient
from msgspec import Raw

from service.core.answers import Claim, Submission
from service.http import openapi
from service.http.front import route_kind
from streams.log import TooLarge
from streams.plan import commands
from streams.plan.decisions import Current, GuardReject, NotFound
from streams.plan.events import TYPE_NAMES
from streams.traceparent import trace_id_of
from tests.unit.http_world import ACCEPTED, CLAIM, HOST, PLAN, TASK, Caller, FakeCore

OWNED = "/v1/plans/p/tasks/t"
WHO = {"owner": "w1", "attempt": 2}
LEASE = {"plan_id": "p", "task_id": "t", "attempt": 2}


@pytest.mark.parametrize(
    ("verb", "more", "expected"),
    [
        ("start", {}, commands.Start),
        ("heartbeat", {}, commands.Heartbeat),
        ("heartbeat", {"progress": {"n": 1}}, commands.Heartbeat),
        ("progress", {"data": [1]}, commands.Progress),
        ("complete", {"output": 1, "model_name": "m"}, commands.Complete),
        ("complete", {"verdict": {"pass": False, "feedback": "no"}}, commands.Complete),
        ("fail", {"error_type": "timeout", "retry_in_s": 2}, commands.Fail),
        ("release", {"reason": "drain"}, commands.Release),
        ("release", {"retry_in_s": 2.5}, commands.Release),
    ],
)
async def test_an_owners_command_reaches_the_core(
    verb: str, more: dict[str, Any], expected: type[commands.OwnerCommand]
) -> None:
    core = FakeCore()
    async with AsyncTestClient(core.app()) as client:
        answer = await client.post(f"{OWNED}/{verb}", json=WHO | more)
    assert answer.status_code == 200
    ((command, origin),) = core.asked
    assert isinstance(command, expected)
    assert (command.plan_id, command.task_id, command.owner, command.attempt) == ("p", "t", "w1", 2)
    assert (origin.actor, origin.instance) == ("w1", "here")
    assert getattr(command, "retry_in_s", None) == more.get("retry_in_s")
    shown = answer.json()
    assert shown["task"]["task_id"] == "t"
    assert ("lease_until" in shown) == ("cancel_requested" in shown) == (verb == "heartbeat")


async def test_progress_that_is_null_is_no_progress() -> None:
    core = FakeCore()
    async with AsyncTestClient(core.app()) as client:
        await client.post(f"{OWNED}/heartbeat", json=WHO | {"progress": None})
        await client.post(f"{OWNED}/heartbeat", json=WHO | {"progress": 0})
    assert [command.progress for command, _ in core.asked] == [None, Raw(b"0")]


# -- plans ------------------------------------------------------------------------------------

TASKS = {"tasks": [{"id": "a", "kind": "echo"}]}


@pytest.mark.parametrize(("created", "status"), [(True, 201), (False, 200)])
async def test_a_new_plan_is_201_and_the_same_again_200(*, created: bool, status: int) -> None:
    core = FakeCore(Submission(plan_id="p", sequence=4, created=created))
    async with AsyncTestClient(core.app()) as client:
        answer = await client.post("/v1/plans", json=TASKS)
    assert answer.status_code == status
    assert answer.json() == {"plan_id": "p", "sequence": 4, "created": created}


@pytest.mark.parametrize(
    ("body_id", "key", "expected"),
    [
        ("mine", None, "mine"),
        ("mine", "other", "mine"),
        (None, "order-7", "order-7"),
        (None, "not an id!", "key-"),
        (None, None, ""),
    ],
)
async def test_a_plans_id_is_its_own_or_its_keys_or_made(
    body_id: str | None, key: str | None, expected: str
) -> None:
    core = FakeCore(Submission(plan_id="p", sequence=4, created=True))
    headers = {"Idempotency-Key": key} if key else {}
    async with AsyncTestClient(core.app()) as client:
        for _ in range(2):
            await client.post("/v1/plans", json=TASKS | {"id": body_id}, headers=headers)
    first, second = (cast("str", asked[0][0]) for asked in core.asked)
    assert first.startswith(expected)
    assert (first == second) == (body_id is not None or key is not None)


async def test_an_idempotency_key_has_a_bound() -> None:
    async with AsyncTestClient(FakeCore().app()) as client:
        answer = await client.post("/v1/plans", json=TASKS, headers={"Idempotency-Key": "k" * 256})
    assert answer.status_code == 400


@pytest.mark.parametrize("body", [None, {}, {"reason": "why not"}])
@pytest.mark.parametrize("verb", ["pause", "resume", "cancel"])
async def test_operators_may_leave_the_reason_out(verb: str, body: dict[str, str] | None) -> None:
    core = FakeCore(PLAN)
    async with AsyncTestClient(core.app()) as client:
        headers = {"content-type": "application/json"}
        answer = await client.post(f"/v1/plans/p/{verb}", json=body, headers=headers)
    assert answer.status_code == 200
    ((command, origin),) = core.asked
    assert type(command).__name__.lower() == verb
    assert command.reason == (body or {}).get("reason", "")
    assert origin.actor == "operator"


async def test_a_retry_answers_the_task() -> None:
    core = FakeCore(TASK)
    async with AsyncTestClient(core.app()) as client:
        answer = await client.post(f"{OWNED}/retry", json={})
    assert answer.json()["task_id"] == "t"
    assert isinstance(core.asked[0][0], commands.Retry)


# -- batches ----------------------------------------------------------------------------------


async def test_a_batch_answers_each_command_in_order() -> None:
    core = FakeCore([ACCEPTED, GuardReject(Current("RUNNING", "w2", 3)), NotFound("no plan")])
    results = [
        {"outcome": "completed", "output": {"a": 1}},
        {"outcome": "failed", "error_type": "timeout"},
        {"outcome": "released"},
    ]
    body = {"owner": "w1", "results": [LEASE | result for result in results]}
    async with AsyncTestClient(core.app()) as client:
        answer = await client.post("/v1/results", json=body)
    assert [type(command).__name__ for command, _ in core.asked] == ["Complete", "Fail", "Release"]
    first, second, third = answer.json()["results"]
    assert first == LEASE | {"status": "accepted", "sequence": 3}
    assert second["status"] == "guard_reject"
    assert second["current"] == {"status": "RUNNING", "owner": "w2", "attempt": 3}
    assert third["status"] == "not_found"


async def test_heartbeats_say_until_when() -> None:
    core = FakeCore()
    body = {"owner": "w1", "leases": [LEASE, LEASE | {"progress": 5}]}
    async with AsyncTestClient(core.app()) as client:
        answer = await client.post("/v1/heartbeats", json=body)
    for renewed in answer.json()["results"]:
        assert renewed["lease_until"]
        assert renewed["cancel_requested"] is False


async def test_one_result_that_is_too_large_does_not_hide_the_others() -> None:
    core = FakeCore([TooLarge("one fact"), ACCEPTED])
    results = [LEASE | {"task_id": name, "outcome": "completed"} for name in ("big", "small")]
    async with AsyncTestClient(core.app()) as client:
        answer = await client.post("/v1/results", json={"owner": "w1", "results": results})
    assert [each["status"] for each in answer.json()["results"]] == ["too_large", "accepted"]
    assert len(core.asked) == 2, "each was sent once"


# -- claims -----------------------------------------------------------------------------------


async def test_a_claim_is_asked_for_and_shown() -> None:
    core = FakeCore([CLAIM])
    async with AsyncTestClient(core.app()) as client:
        answer = await client.post("/v1/claims", json={"owner": "w1", "kinds": ["echo"]})
    (claim,) = answer.json()["claims"]
    assert claim["fencing_token"] == 42
    assert claim["lease_until"].endswith("Z")


async def test_a_claim_may_wait() -> None:
    core = FakeCore()
    core.claiming = asyncio.get_running_loop().create_future()
    caller = Caller(core, "/v1/claims", b'{"owner":"w","wait_s":30}')
    await asyncio.wait_for(core.claim_asked.wait(), 5)
    core.claiming.set_result([CLAIM])
    await asyncio.wait_for(caller.running, 20)
    assert caller.status == 200
    assert b'"fencing_token":42' in caller.body


async def test_a_worker_that_hangs_up_while_it_waits_asks_no_longer() -> None:
    core = FakeCore()
    core.claiming = asyncio.get_running_loop().create_future()
    caller = Caller(core, "/v1/claims", b'{"owner":"w","wait_s":30}')
    await asyncio.wait_for(core.claim_asked.wait(), 5)
    caller.hang_up()
    await asyncio.wait_for(caller.running, 20)
    assert core.claiming.cancelled()


async def test_leases_granted_to_a_worker_that_has_hung_up_are_given_back() -> None:
    core = FakeCore()

    async def granted_too_late(*_: object) -> list[Claim]:
        core.claim_asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return [CLAIM]
        raise AssertionError

    core.claim = granted_too_late  # type: ignore[method-assign]
    caller = Caller(core, "/v1/claims", b'{"owner":"w","wait_s":30}')
    await asyncio.wait_for(core.claim_asked.wait(), 5)
    caller.hang_up()
    await asyncio.wait_for(caller.running, 20)
    assert [what for what, _ in core.asked] == [("w", CLAIM)]


# -- names of requests ------------------------------------------------------------------------

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.mark.parametrize("path", ["/healthz", "/nowhere", "/v1/plans?limit=0"])
async def test_every_answer_names_its_request_and_trace(path: str) -> None:
    async with AsyncTestClient(FakeCore().app()) as client:
        given = await client.get(path, headers={"x-request-id": "r-1", "traceparent": PARENT})
        made = await client.get(path)
    assert given.headers["x-request-id"] == "r-1"
    assert given.headers["x-trace-id"] == TRACE
    assert len(made.headers["x-request-id"]) == 16
    assert len(made.headers["x-trace-id"]) == 32


@pytest.mark.parametrize("name", ["x" * 129, "a b", "\x7f", ""])
async def test_a_request_id_that_does_not_fit_is_replaced(name: str) -> None:
    async with AsyncTestClient(FakeCore().app()) as client:
        answer = await client.get("/healthz", headers={"x-request-id": name})
    assert answer.headers["x-request-id"] != name


async def test_facts_bear_the_trace_of_their_request() -> None:
    core = FakeCore()
    async with AsyncTestClient(core.app()) as client:
        await client.post(f"{OWNED}/start", json=WHO, headers={"traceparent": PARENT})
        made = await client.post(f"{OWNED}/start", json=WHO, headers={"x-trace-id": TRACE})
        await client.post(f"{OWNED}/start", json=WHO, headers={"traceparent": "00-" + "0" * 32})
    assert made.headers["x-trace-id"] == TRACE
    first, second, third = (origin.traceparent for _, origin in core.asked)
    assert first == PARENT
    assert second.startswith(f"00-{TRACE}-")
    assert third == "", "what is no traceparent is as good as none: the facts join their plan's"


@pytest.mark.parametrize("headers", [{}, {"traceparent": PARENT}, {"x-trace-id": TRACE}])
async def test_a_submission_begins_the_trace_that_its_answer_names(headers: dict[str, str]) -> None:
    core = FakeCore(Submission(plan_id="p", sequence=1, created=True))
    async with AsyncTestClient(core.app()) as client:
        plan = {"tasks": [{"id": "a", "kind": "echo"}]}
        answer = await client.post("/v1/plans", json=plan, headers=headers)
    ((_, origin),) = core.asked
    assert trace_id_of(origin.traceparent) == answer.headers["x-trace-id"]


# -- the document -----------------------------------------------------------------------------


async def test_the_document_holds_every_route_and_every_problem() -> None:
    async with AsyncTestClient(FakeCore().app()) as client:
        document = (await client.get("/schema/openapi.json")).json()
    operations = [
        (path, method, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]
    assert (
        len({operation["operationId"] for _, _, operation in operations}) == len(operations) >= 28
    )
    for path, method, operation in operations:
        assert operation["tags"]
        assert operation["responses"]["400"]["content"].keys() == {"application/problem+json"}
        assert ("requestBody" in operation) == (method == "post")
        assert ("404" in operation["responses"]) == ("{" in path)
        assert operation.get("security", []) or path in {"/healthz", "/readyz", "/v1/session"}
    schemes = document["components"]["securitySchemes"]
    assert schemes["bearer"]["scheme"] == "bearer"
    assert (schemes["session"]["in"], schemes["session"]["name"]) == ("cookie", "holdfast_session")


async def test_the_document_is_made_once_and_not_on_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made_on: list[int] = []
    complete = openapi.complete_document
    app = FakeCore().own_app()

    def noting(described: Any, schemas: Any) -> None:
        made_on.append(threading.get_ident())
        complete(described, schemas)

    monkeypatch.setattr(openapi, "complete_document", noting)
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type] - on this loop
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as client:
        asked = (client.get("/schema/openapi.json") for _ in range(3))
        answers = await asyncio.gather(*asked)
    assert {answer.text for answer in answers} == {answers[0].text}
    assert answers[0].json()["paths"]
    assert len(made_on) == 1
    assert made_on[0] != threading.get_ident()


async def test_the_document_says_what_is_enforced() -> None:
    async with AsyncTestClient(FakeCore().app()) as client:
        schemas = (await client.get("/schema/openapi.json")).json()["components"]["schemas"]
    task = schemas["TaskBody"]
    assert task["additionalProperties"] is False
    assert task["required"] == ["id", "kind"]
    assert task["properties"]["id"]["pattern"] == "^[A-Za-z0-9_-]{1,64}$"
    assert task["properties"]["input"] == {}
    assert schemas["ClaimBody"]["properties"]["limit"]["maximum"] == 500
    for shown, name in (("PlanView", "created_at"), ("Claim", "lease_until"), ("Finding", "at")):
        if name in schemas[shown]["properties"]:
            assert schemas[shown]["properties"][name]["format"] == "date-time"
    assert schemas["StreamEvent"]["discriminator"]["mapping"].keys() == set(TYPE_NAMES.values())
    assert schemas["ClaimedEvent"]["properties"]["data"] == {"$ref": "#/components/schemas/Claimed"}


async def test_every_reference_of_the_document_leads_somewhere() -> None:
    async with AsyncTestClient(FakeCore().app()) as client:
        text = (await client.get("/schema/openapi.json")).text
    referred = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert referred <= json.loads(text)["components"]["schemas"].keys()


@pytest.mark.parametrize(
    ("accept", "opened"),
    [
        (
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            1,
        ),
        ("application/openmetrics-text;q=0.3, text/plain;q=0.8", 0),
        ("text/plain, application/openmetrics-text;q=0.5", 0),
        ("application/openmetrics-text;q=0", 0),
        ("application/openmetrics-text;q=inf", 0),
        ("Application/OpenMetrics-Text", 1),
        ("*/*", 0),
        ("", 0),
    ],
)
async def test_the_language_of_metrics_is_the_one_that_is_preferred(
    accept: str, *, opened: bool
) -> None:
    async with AsyncTestClient(FakeCore().app()) as client:
        answer = await client.get("/metrics", headers={"accept": accept})
    assert answer.headers["content-type"].startswith("application/openmetrics-text") == opened


async def test_answers_are_counted_by_the_kind_of_status() -> None:
    core = FakeCore()
    async with AsyncTestClient(core.app()) as client:
        await client.get("/healthz")
        await client.head("/healthz")
        await client.get("/nowhere")
        core.answer = RuntimeError("a defect")
        await client.post(f"{OWNED}/start", json=WHO)
        shown = (await client.get("/actuator/metrics/agent.http.request.total")).json()["values"]
    assert {each["labels"]["status"]: each["value"] for each in shown} == {
        "2xx": 2, "4xx": 1, "5xx": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "route", "kind"),
    [
        ("GET", "/v1/plans", "read"),
        ("HEAD", "/v1/plans/{plan_id}", "read"),
        ("POST", "/v1/plans", "write"),
        ("POST", "/v1/claims", "claim"),
        ("POST", "/v1/plans/{plan_id}/tasks/{task_id}/claim", "write"),
        ("GET", "/v1/events", None),
        ("GET", "/v1/plans/{plan_id}/events", None),
        ("GET", "/healthz", None),
        ("GET", "other", None),
    ],
)
def test_requests_of_three_kinds_are_timed(method: str, route: str, kind: str | None) -> None:
    assert route_kind(method, route) == kind


async def test_a_request_is_timed_to_the_end_of_its_answer() -> None:
    core = FakeCore()
    async with AsyncTestClient(core.app()) as client:
        for path in ("/v1/ops/status", "/v1/plans/x%00", "/healthz", "/v1/nowhere"):
            await client.get(path)
        await client.post("/v1/plans", content=b"no JSON")
    shown = core.metrics.shown("agent.http.request.duration")
    assert shown is not None
    counted = {each.labels["route"]: each.count for each in shown.values}
    assert counted == {"read": 2, "write": 1, "claim": 0}
    assert all(0 <= (each.sum or 0) < 5 for each in shown.values)


async def test_metrics_are_served_in_both_languages_and_one_by_one() -> None:
    core = FakeCore()
    core.metrics.count("agent.task.claim.poll.total", 3)
    async with AsyncTestClient(core.app()) as client:
        text = await client.get("/metrics")
        opened = await client.get("/metrics", headers={"accept": "application/openmetrics-text"})
        names = (await client.get("/actuator/metrics")).json()["names"]
        one = (await client.get("/actuator/metrics/agent.task.claim.poll.total")).json()
        none = await client.get("/actuator/metrics/agent.nothing")
    assert "agent_task_claim_poll_total 3.0" in text.text
    assert text.headers["content-type"].startswith("text/plain")
    assert opened.headers["content-type"].startswith("application/openmetrics-text")
    assert "agent.task.claim.poll.total" in names
    assert one["values"] == [{"labels": {}, "value": 3.0}]
    assert none.status_code == 404
