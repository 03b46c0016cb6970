"""Every request is answered within its bound, whatever it waits for, and no lease is lost by that.

The table is made of the application's own routes, so a new route is in it.
"""

import asyncio
import time
from types import SimpleNamespace
from typing import Any, Never

import httpx
import msgspec

from service.http.deadlines import CallLimits
from tests.unit.http_world import CLAIM, HOST, PLAN, Caller, FakeCore
from tests.unit.test_access import ROUTES

SHORT = CallLimits(read_s=0.1, write_s=0.2, long_read_s=0.3, look_s=0.02)
LATE_S = 20.0  # on a busy machine
OWNER = {"owner": "w", "attempt": 1}
LEASE = {"plan_id": "p", "task_id": "t", "attempt": 1}
BODIES: dict[str, dict[str, Any]] = {
    "plans": {"id": "p", "tasks": [{"id": "t", "kind": "echo"}]},
    "claims": {"owner": "w"},
    "claim": {"owner": "w"},
    "heartbeats": {"owner": "w", "leases": [LEASE]},
    "results": {"owner": "w", "results": [{**LEASE, "outcome": "completed"}]},
    "fail": {**OWNER, "error_type": "other"},
    "progress": {**OWNER, "data": 1},
    "checkpoint": {**OWNER, "key": "k", "value": 1},
    "take-back": {"attempt": 1},
    **dict.fromkeys(("start", "heartbeat", "complete", "release"), OWNER),
}
"""What is sent to each route that changes something, by the last part of its path."""
AT_HAND = {
    "GET /", "GET /page/{path}", "GET /healthz", "GET /readyz", "GET /metrics",
    "GET /actuator/metrics", "GET /actuator/metrics/{name}", "OPTIONS /",
    "GET /schema", "GET /schema/{path}", "GET /schema/openapi.json",
    "GET /v1/session", "POST /v1/session", "DELETE /v1/session",
    "GET /v1/ops/status", "GET /v1/ops/history", "GET /v1/workers",
}  # fmt: skip
"""Routes that wait for nothing: what they answer is in memory."""
LONG = ("/v1/ops/doctor",)


class HungCore(FakeCore):
    """Never answers anything."""

    def __init__(self, limits: CallLimits = SHORT) -> None:
        super().__init__()
        self.limits = limits
        self.doctor = SimpleNamespace(report=self._hang)
        self.feed = SimpleNamespace(admit=lambda: None, prepare=self._hang, discharge=lambda: None)
        running = SimpleNamespace(status="RUNNING", owner="w", attempt=1)
        plan = SimpleNamespace(tasks={"t": running})
        self.board = SimpleNamespace(knows=lambda _: plan, sequence=1)
        self.log = SimpleNamespace(scan=self._hang, state=self._hang)
        for name in (
            "submit", "operate", "retry", "own", "own_many", "claim", "claim_chosen", "goodbye",
            "visible", "newest",
        ):  # fmt: skip
            setattr(self, name, self._hang)

    async def _hang(self, *_: object, **__: object) -> Never:
        self.claim_asked.set()
        await asyncio.Event().wait()
        raise AssertionError


def asking(core: FakeCore) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=core.app(), raise_app_exceptions=False)  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}", timeout=LATE_S)


async def test_every_route_that_waits_is_answered_503_when_its_time_is_over() -> None:
    waiting = [(method, path) for method, path, _ in ROUTES if f"{method} {path}" not in AT_HAND]
    async with asking(HungCore()) as client:
        wrong = await asyncio.gather(*(_wrong(client, *route) for route in waiting))
    assert not [each for each in wrong if each]


async def _wrong(client: httpx.AsyncClient, method: str, path: str) -> str:
    """What is wrong with the answer of a route; empty if nothing is."""
    asked = path.format(plan_id="p", task_id="t", owner="w", path="x", name="x")
    body = BODIES.get(path.rpartition("/")[2], {}) if method == "POST" else None
    limit_s = SHORT.write_s if method != "GET" else SHORT.read_s
    limit_s = SHORT.long_read_s if path in LONG else limit_s
    began = time.monotonic()
    try:
        answer = await client.request(method, asked, json=body)
    except httpx.ReadTimeout:
        return f"{method} {path}: no answer"
    said = answer.json()
    as_it_should = (
        answer.status_code == 503
        and said["code"] == "log_unavailable"
        and f"within {limit_s:g} s" in said["detail"]
        and "retry-after" in answer.headers
        and time.monotonic() - began >= limit_s
    )
    return "" if as_it_should else f"{method} {path}: {answer.status_code} {answer.text}"


async def test_a_plan_as_of_a_sequence_may_take_longer_than_other_reads() -> None:
    async with asking(HungCore()) as client:
        answer = await client.get("/v1/plans/p?at_sequence=1")
    assert "within 0.3 s" in answer.json()["detail"]


async def test_a_claim_may_wait_as_long_as_it_asks_to() -> None:
    async with asking(HungCore()) as client:
        answer = await client.post("/v1/claims", json={"owner": "w", "wait_s": 0.5})
    assert "within 0.7 s" in answer.json()["detail"]


async def test_the_time_that_a_body_takes_to_arrive_does_not_count() -> None:
    core = FakeCore(PLAN)
    core.limits = SHORT
    caller = Caller(core, "/v1/plans/p/pause", b"{", ends=False)
    await asyncio.sleep(2 * SHORT.write_s)
    caller.send(b"}")
    await asyncio.wait_for(caller.running, LATE_S)
    assert caller.status == 200


async def test_an_answer_that_has_begun_may_take_longer() -> None:
    core = FakeCore(PLAN)
    core.limits = SHORT
    slow = asyncio.Event()
    caller = Caller(core, "/v1/plans/p/pause", b"{}", taken=slow)
    await asyncio.sleep(2 * SHORT.write_s)
    slow.set()
    await asyncio.wait_for(caller.running, LATE_S)
    assert msgspec.json.decode(caller.body)["plan_id"] == "p"


async def test_leases_that_come_in_the_moment_in_which_the_time_ends_are_answered() -> None:
    core = FakeCore()
    core.limits = SHORT
    core.claiming = asyncio.get_running_loop().create_future()
    caller = Caller(core, "/v1/claims", b'{"owner":"w","wait_s":0.1}')
    await asyncio.wait_for(core.claim_asked.wait(), LATE_S)
    core.claiming.set_result([CLAIM])
    time.sleep(2 * (SHORT.write_s + 0.1))  # noqa: ASYNC251 - both are due when the loop goes on
    await asyncio.wait_for(caller.running, LATE_S)
    assert caller.status == 200
    assert b'"fencing_token":42' in caller.body
