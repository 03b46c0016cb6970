"""Behind a slow log every call of the API ends in time, and what it began ends well.

The log's answers come late through a proxy; the application has shorter bounds than usual.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx

from service.app import Instance
from service.http.access import Access
from service.http.app import create_app
from service.http.deadlines import CallLimits
from service.http.refused_tokens import RefusedTokens
from service.ops.operations import Operations
from streams.log import Fact
from streams.plan.events import Claimed, Released
from tests.busy import stretch
from tests.conftest import PrivateServer
from tests.faults.delaying_proxy import DelayingProxy
from tests.integration.http_world import serving, until_status

LIMITS = CallLimits(read_s=0.6, write_s=0.8, look_s=0.05)
DELAY_S = 1.5  # of each answer, longer than any bound
MARGIN_S = 2.0  # without a bound it is 5 s and more: see `streams.decider`
CLAIM_WAIT_S = 0.2


@asynccontextmanager
async def behind(
    folder: Path, proxy: DelayingProxy
) -> AsyncIterator[tuple[Instance, httpx.AsyncClient, httpx.AsyncClient]]:
    """An instance, its client, and one of an application on it that has short bounds."""
    async with serving(folder, nats__url=proxy.url) as (instance, client):
        core = instance.core
        access = Access(None, RefusedTokens(core.metrics, core.audit))
        operations = cast("Operations", SimpleNamespace())
        app: Any = create_app(core, operations, access, LIMITS)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1:8000", timeout=30
        ) as hurried:
            yield instance, client, hurried


async def test_each_call_ends_in_time_and_a_late_lease_is_given_back(
    private_nats: PrivateServer, tmp_path: Path
) -> None:
    proxy = DelayingProxy(private_nats.url)
    try:
        async with behind(tmp_path, proxy) as (_, client, _):
            await client.post("/v1/plans", json=_plan("old", "echo"))
            await until_status(client, "/v1/plans/old", "COMPLETED")
            await client.post("/v1/plans", json=_plan("new", "outside"))
        async with behind(tmp_path, proxy) as (instance, _, hurried):
            assert instance.core.knows("old") is None, "a finished plan is not in memory"
            proxy.delay_s = DELAY_S
            await asyncio.gather(
                _ends(hurried, LIMITS.write_s, "POST", "/v1/plans/old/pause", {}),
                _ends(hurried, LIMITS.write_s, "POST", "/v1/plans/old/tasks/t/retry", {}),
                _ends(hurried, LIMITS.write_s, "POST", "/v1/plans/old/tasks/t/start", _LEASE),
                _ends(hurried, LIMITS.write_s, "POST", "/v1/results", _RESULTS),
                _ends(hurried, LIMITS.write_s, "POST", "/v1/plans", _plan("third", "outside")),
                _ends(hurried, LIMITS.read_s, "GET", "/v1/plans/none", None),
                _ends(hurried, LIMITS.read_s, "GET", f"/v1/plans?min_sequence={10**6}", None),
                _ends(hurried, LIMITS.write_s + CLAIM_WAIT_S, "POST", "/v1/claims", _CLAIM),
            )
            proxy.delay_s = 0.0
            await _given_back(instance)
            assert (await hurried.post("/v1/plans", json=_plan("third", "outside"))).is_success
    finally:
        proxy.stop()


_LEASE = {"owner": "w", "attempt": 1}
_RESULTS = {
    "owner": "w",
    "results": [{"plan_id": "old", "task_id": "t", "attempt": 1, "outcome": "completed"}],
}
_CLAIM = {"owner": "w", "kinds": ["outside"], "wait_s": CLAIM_WAIT_S, "lease_s": 60}


def _plan(plan_id: str, kind: str) -> dict[str, Any]:
    return {"id": plan_id, "tasks": [{"id": "t", "kind": kind}]}


async def _ends(
    client: httpx.AsyncClient, limit_s: float, method: str, path: str, body: object
) -> None:
    began = time.monotonic()
    answer = await client.request(method, path, json=body)
    took_s = time.monotonic() - began
    assert answer.status_code == 503, f"{path}: {answer.status_code} {answer.text}"
    assert answer.json()["code"] == "log_unavailable", answer.text
    assert took_s < (limit_s + MARGIN_S) * stretch(), f"{path} took {took_s:.2f} s"


async def _given_back(instance: Instance) -> None:
    """Wait until the claim, whose answer came too late, has been released."""
    async with asyncio.timeout(20):
        while True:
            facts = await instance.core.log.read("new", "t")
            events = [type(fact.event) for fact in facts if isinstance(fact, Fact)]
            if Released in events:
                assert events == [Claimed, Released]
                return
            await asyncio.sleep(0.05)
