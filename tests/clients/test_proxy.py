"""Streams behind Debian's nginx: default settings buffer answers and speak HTTP/1.0 upstream."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from service.app import Instance
from tests.clients.nginx import Nginx
from tests.clients.outside import OutsidePlan
from tests.conftest import PrivateServer
from tests.faults.service_process import ROOT
from tests.integration.http_world import serving as with_http
from tests.integration.sse_world import Stream, serving
from tests.unit.tokens_world import bearer, give


@pytest.fixture
async def instance(private_nats: PrivateServer, tmp_path: Path) -> AsyncIterator[Instance]:
    async with serving(private_nats.url, tmp_path / "one", heartbeat_s=0.5) as instance:
        yield instance


async def test_events_come_through_one_by_one_as_they_happen(
    instance: Instance, tmp_path: Path
) -> None:
    plan = await OutsidePlan.begin(instance.core, "p")
    with Nginx(tmp_path / "nginx", instance.http_url) as nginx:
        async with Stream(nginx.url, "/v1/plans/p/events") as stream:
            assert await stream.take(2) == [1, 2]
            await stream.until("caught_up")
            for _ in range(20):
                # The next is only written once this one has come: nothing waits in a buffer.
                sequence = await plan.progress()
                assert await stream.take(1) == [sequence]
            await plan.finish()
            ended = await stream.until("closed")
        assert ended[-1].json() == {"reason": "plan_finished"}
        async with httpx.AsyncClient(base_url=nginx.url) as client:
            cursor = {"Last-Event-ID": str(plan.sequence)}
            again = await client.get("/v1/plans/p/events", headers=cursor)
    assert again.status_code == 204


async def test_pings_keep_an_idle_stream_through_its_read_timeout(
    instance: Instance, tmp_path: Path
) -> None:
    """In small: nginx gives up after 60 s of silence, and a ping comes every 15."""
    plan = await OutsidePlan.begin(instance.core, "p")
    loop = asyncio.get_running_loop()
    with Nginx(tmp_path / "nginx", instance.http_url, "proxy_read_timeout 2s;") as nginx:
        async with Stream(nginx.url, "/v1/plans/p/events") as stream:
            await stream.until("caught_up")
            quiet = asyncio.create_task(stream.next())
            started = loop.time()
            await asyncio.wait([quiet], timeout=3)
            assert not quiet.done()
            sequence = await plan.progress()
            assert (await quiet).id == str(sequence)
            assert loop.time() - started >= 3


async def test_a_stream_that_the_proxy_cuts_is_resumed_without_gap_or_repetition(
    private_nats: PrivateServer, tmp_path: Path
) -> None:
    """Pings are too rare here for the proxy's patience, so it cuts again and again."""
    async with serving(private_nats.url, tmp_path / "one", heartbeat_s=60) as instance:
        plan = await OutsidePlan.begin(instance.core, "p")
        with Nginx(tmp_path / "nginx", instance.http_url, "proxy_read_timeout 1s;") as nginx:
            seen: list[int] = []

            def resumed() -> Stream:
                cursor = {"Last-Event-ID": str(seen[-1])} if seen else {}
                return Stream(nginx.url, "/v1/plans/p/events", headers=cursor)

            for _ in range(2):
                async with resumed() as stream:
                    seen += await stream.take(plan.sequence - len(seen))
                    with pytest.raises((StopAsyncIteration, httpx.RemoteProtocolError)):
                        await stream.until("the proxy cuts it")
                await plan.progress(3)  # while no client is connected
            async with resumed() as stream:
                seen += await stream.take(3)
            assert seen == list(range(1, plan.sequence + 1))


RECIPE = re.findall(
    r"^```nginx\n.*?location / \{\n(.*?)^    \}",
    (ROOT / "docs/howto/behind-a-proxy.md").read_text(),
    re.MULTILINE | re.DOTALL,
)[0]


async def test_the_documented_site_lets_its_own_pages_write_and_no_others(tmp_path: Path) -> None:
    directives = "\n".join(line for line in RECIPE.splitlines() if "proxy_pass " not in line)
    assert "proxy_set_header Host" in directives
    operator = bearer(give(tmp_path / "tokens", "alice", "operator"))
    flags = {"auth__tokens_file": str(tmp_path / "tokens"), "http__allowed_hosts": "127.0.0.1"}
    plan = {"tasks": [{"id": "a", "kind": "outside"}]}
    async with with_http(tmp_path, **flags) as (instance, _):
        with Nginx(tmp_path / "nginx", instance.http_url, directives) as nginx:
            async with httpx.AsyncClient(base_url=nginx.url, headers=operator) as client:
                own = await client.post("/v1/plans", json=plan, headers={"Origin": nginx.url})
                assert own.status_code == httpx.codes.CREATED
                other = {"Origin": "https://evil.test"}
                refused = await client.post("/v1/plans", json=plan, headers=other)
                assert refused.status_code == httpx.codes.FORBIDDEN


async def test_a_proxy_before_an_instance_without_tokens_is_told_why(tmp_path: Path) -> None:
    directives = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"
    async with with_http(tmp_path) as (instance, _):
        with Nginx(tmp_path / "nginx", instance.http_url, directives) as nginx:
            async with httpx.AsyncClient(base_url=nginx.url) as client:
                answer = await client.get("/healthz")
    assert answer.status_code == httpx.codes.FORBIDDEN
    assert "auth.tokens_file" in answer.json()["detail"]
