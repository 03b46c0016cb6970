"""Metrics over HTTP, and what is counted and timed of requests."""

import pytest
from litestar.testing import AsyncTestClient

from service.http.front import route_kind
from tests.unit.http_world import FakeCore

OWNED = "/v1/plans/p/tasks/t"
WHO = {"owner": "w1", "attempt": 2}


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
