"""Requests that fit reach the core as the right command, and its answers go back as API.md says."""

import asyncio
from typing import Any, cast

import pytest
from litestar.testing import AsyncTestClient
from msgspec import Raw

from service.core.answers import Claim, Submission
from streams.log import TooLarge
from streams.plan import commands
from streams.plan.decisions import Current, GuardReject, NotFound
from streams.traceparent import trace_id_of
from tests.unit.http_world import ACCEPTED, CLAIM, PLAN, TASK, Caller, FakeCore

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
