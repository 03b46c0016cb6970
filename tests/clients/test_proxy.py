"""Streams behind Debian's nginx: default settings buffer answers and speak HTTP/1.0 upstream."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from service.app import Instance
from tests.clients.nginx import Nginx
from tests.clients.outside import OutsidePlan
from tests.conftest import PrivateServer
from tests.integration.sse_world import Stream, serving


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
