"""Every failure is answered as a problem with the documented code, status and fields."""

from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from projections.read_models.pagination import BadCursor
from projections.read_models.sqlite_file import DatabaseUnavailable
from service.core.answers import Behind, TooMuchUnfinished
from service.http.problems import PROBLEM_TYPE, PROBLEMS
from streams.decider import Contention
from streams.log import LogFull, LogUnavailable, TooLarge
from streams.plan.decisions import Current, GuardReject, Invalid, NotAllowed, NotFound, PlanExists
from tests.unit.http_world import FakeCore

CAUSES: list[tuple[object, int, str, dict[str, Any]]] = [
    (
        GuardReject(Current("RUNNING", "w2", 2)),
        409,
        "guard_reject",
        {"current": {"status": "RUNNING", "owner": "w2", "attempt": 2}},
    ),
    (NotFound("there is no plan 'p'"), 404, "not_found", {}),
    (NotAllowed("CANCELLED", "no"), 409, "not_allowed", {"current": {"status": "CANCELLED"}}),
    (Invalid("task 'a': no"), 400, "invalid_request", {}),
    (PlanExists("taken"), 409, "plan_exists", {}),
    (Contention(8), 503, "contended", {}),
    (LogUnavailable("nobody answers"), 503, "log_unavailable", {}),
    (TooMuchUnfinished("full"), 429, "too_much_unfinished", {}),
    (LogFull("full"), 507, "log_full", {}),
    (TooLarge("one fact"), 413, "too_large", {}),
    (Behind(17), 503, "behind", {"sequence": 17}),
    (DatabaseUnavailable("locked"), 503, "database_unavailable", {}),
    (BadCursor("no"), 400, "invalid_request", {}),
    (RuntimeError("a defect"), 500, "internal_error", {}),
]


@pytest.mark.parametrize(("cause", "status", "code", "fields"), CAUSES)
async def test_every_cause_has_its_problem(
    cause: object, status: int, code: str, fields: dict[str, Any]
) -> None:
    async with AsyncTestClient(FakeCore(cause).app()) as client:
        answer = await client.post("/v1/plans/p/tasks/t/start", json={"owner": "w1", "attempt": 1})
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert answer.headers["content-type"] == PROBLEM_TYPE
    assert problem["type"] == f"urn:holdfast:problem:{code}"
    assert problem["title"] == PROBLEMS[code].title
    assert problem["detail"]
    assert {name: problem[name] for name in fields} == fields
    assert ("retry-after" in answer.headers) == (status in (429, 503))


async def test_a_defect_shows_nothing_of_its_inside() -> None:
    async with AsyncTestClient(FakeCore(RuntimeError("password=hunter2")).app()) as client:
        answer = await client.post("/v1/plans/p/tasks/t/start", json={"owner": "w1", "attempt": 1})
    assert "hunter2" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/plans/p/nothing", 404, "not_found"),
        ("DELETE", "/v1/plans/p", 405, "method_not_allowed"),
        ("PUT", "/v1/plans", 405, "method_not_allowed"),
        ("GET", "/v1/claims", 405, "method_not_allowed"),
    ],
)
async def test_the_frameworks_own_refusals_are_problems_too(
    method: str, path: str, status: int, code: str
) -> None:
    async with AsyncTestClient(FakeCore().app()) as client:
        answer = await client.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == PROBLEM_TYPE
    assert ("allow" in answer.headers) == (status == 405)


async def test_readiness_names_what_fails() -> None:
    core = FakeCore()
    async with AsyncTestClient(core.app()) as client:
        assert (await client.get("/readyz")).status_code == 200
        core.checks = [type(core.checks[0])("log", ok=False, detail="gone"), *core.checks]
        answer = await client.get("/readyz")
        alive = await client.get("/healthz")
    assert answer.status_code == 503
    assert answer.json()["failing"] == ["log"]
    assert alive.status_code == 200
