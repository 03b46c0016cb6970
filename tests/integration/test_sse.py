"""Event streams over real sockets, with the whole instance behind them."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from httpx_sse import aconnect_sse
from msgspec import Raw

from service.app import Instance
from streams.plan.events import Claimed, Finished, Progress, Submitted, TaskSpec
from tests.conftest import PrivateServer
from tests.integration.sse_world import Stream, serving, write
from tests.waiting import eventually

SUBMITTED = Submitted(tasks=(TaskSpec(id="a", kind="nobody does this"),))
CLAIMED = Claimed(owner="w", attempt=1, lease_s=600)
FINISHED = Finished(status="COMPLETED")


def progress(size: int = 1) -> Progress:
    return Progress(owner="w", attempt=1, data=Raw(b'"%b"' % (b"x" * size)))


@pytest.fixture
async def instance(private_nats: PrivateServer, tmp_path: Path) -> AsyncIterator[Instance]:
    async with serving(private_nats.url, tmp_path / "one", buffer_events=20) as instance:
        yield instance


async def begin_plan(instance: Instance, plan_id: str = "p") -> int:
    await write(instance.core, plan_id, None, 0, SUBMITTED)
    return await write(instance.core, plan_id, "a", 0, CLAIMED)


async def test_a_plan_is_streamed_to_its_end_and_then_answers_204(instance: Instance) -> None:
    await begin_plan(instance)
    async with Stream(instance.http_url, "/v1/plans/p/events") as stream:
        assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert stream.headers["cache-control"] == "no-cache, no-transform"
        assert stream.headers["x-accel-buffering"] == "no"
        names = [event.event for event in await stream.until("caught_up")]
        assert names == ["hello", "plan.submitted", "task.claimed", "caught_up"]
        await write(instance.core, "p", None, 1, FINISHED)
        rest = await stream.until("closed")
    assert [event.event for event in rest] == ["plan.finished", "closed"]
    async with httpx.AsyncClient(base_url=instance.http_url) as client:
        again = await client.get("/v1/plans/p/events", headers={"Last-Event-ID": rest[-1].id})
    assert (again.status_code, again.content) == (204, b"")


async def test_the_header_wins_over_the_query(instance: Instance) -> None:
    await begin_plan(instance)
    asked = {"headers": {"Last-Event-ID": "1"}, "params": {"after": "0"}}
    async with Stream(instance.http_url, "/v1/events", **asked) as stream:
        assert await stream.take(1) == [2]


@pytest.mark.parametrize(
    ("path", "header", "status", "named"),
    [
        ("/v1/events?after=-1", None, 400, "after"),
        ("/v1/events?after=x", None, 400, "after"),
        ("/v1/events?after=99999999999999999999", None, 400, "after"),
        ("/v1/events?types=task.done", None, 400, "task.claimed"),
        ("/v1/events?types=", None, 400, "types"),
        ("/v1/events?plan_id=a.b", None, 400, "plan_id"),
        ("/v1/events?task_id=", None, 400, "task_id"),
        ("/v1/events?typ=task.failed", None, 400, "typ"),
        ("/v1/events?after=1&after=2", None, 400, "after"),
        ("/v1/plans/nobody/events", None, 404, "nobody"),
        ("/v1/plans/a.b/events", None, 404, "id"),
    ],
)
async def test_what_does_not_fit_is_a_problem_that_names_it(
    instance: Instance, path: str, header: str | None, status: int, named: str
) -> None:
    async with httpx.AsyncClient(base_url=instance.http_url) as client:
        answer = await client.get(path, headers={"Last-Event-ID": header} if header else {})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert named in answer.json()["detail"]
    assert instance.core.feed.connections == 0


@pytest.mark.parametrize("path", ["/v1/events", "/v1/events?after=1", "/v1/plans/p/events"])
@pytest.mark.parametrize("cursor", ["1x", "-1", "9" * 40, "9" * 5_000, "urn:uuid:other-server"])
async def test_a_cursor_that_no_instance_gave_out_starts_the_stream_with_a_gap(
    instance: Instance, path: str, cursor: str
) -> None:
    await begin_plan(instance)
    headers = {"Last-Event-ID": cursor}
    async with Stream(instance.http_url, path, headers=headers) as stream:
        *_, gap = await stream.until("gap")
        assert '"reason":"unreadable"' in gap.data
        assert gap.id.isdecimal(), "a client that comes back brings a cursor that can be read"
        seen = [event.id for event in await stream.until("caught_up") if "." in event.event]
    async with Stream(instance.http_url, path) as stream:
        without = [event.id for event in await stream.until("caught_up") if "." in event.event]
    assert seen == without, "the stream goes on as one without a cursor"


async def test_one_stream_too_many_gets_503_and_retry_after(
    private_nats: PrivateServer, tmp_path: Path
) -> None:
    async with serving(private_nats.url, tmp_path / "one", max_connections=1) as instance:
        async with Stream(instance.http_url, "/v1/events") as stream:
            await stream.until("caught_up")
            async with httpx.AsyncClient(base_url=instance.http_url) as client:
                answer = await client.get("/v1/events")
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert int(answer.headers["retry-after"]) > 0
        await eventually(lambda: not instance.core.feed.connections, "the first has left")
        async with Stream(instance.http_url, "/v1/events") as stream:
            await stream.until("caught_up")


LAST = Progress(owner="w", attempt=1, data=Raw(b'"the last"'))


async def follow_with_breaks(urls: list[str], luck: random.Random, path: str) -> list[int]:
    """A client that hangs up at random and goes on at any instance until `LAST`; what it saw."""
    seen: list[int] = []
    ended = False
    while not ended:
        headers = {"Last-Event-ID": str(seen[-1])} if seen else {}
        async with (
            httpx.AsyncClient(base_url=luck.choice(urls), timeout=20) as client,
            aconnect_sse(client, "GET", path, headers=headers) as source,
        ):
            left = luck.randrange(1, 120)
            async for event in source.aiter_sse():
                if "." in event.event:
                    seen.append(int(event.id))
                    left -= 1
                    ended = '"the last"' in event.data
                if ended or not left:
                    break
    return seen


@pytest.mark.timeout(120)
async def test_clients_that_break_off_and_move_see_every_event_once(
    private_nats: PrivateServer, tmp_path: Path
) -> None:
    """Two instances, one log, random breaks: each client's sequences are those of the log."""
    async with (
        serving(private_nats.url, tmp_path / "one", buffer_events=50, replay_batch_size=30) as one,
        serving(private_nats.url, tmp_path / "two", buffer_events=1000) as two,
    ):
        core = one.core
        on_p, on_q = await begin_plan(one, "p"), await begin_plan(one, "q")
        urls = [one.http_url, two.http_url]
        tasks = [
            asyncio.create_task(
                follow_with_breaks(
                    urls,
                    random.Random(n),
                    ("/v1/events?after=0", "/v1/events?plan_id=p&after=0")[n % 2],
                )
            )
            for n in range(8)
        ]
        for _ in range(60):
            on_p = await write(core, "p", "a", on_p, *(progress() for _ in range(7)))
            on_q = await write(core, "q", "a", on_q, *(progress() for _ in range(3)))
        await write(core, "p", "a", on_p, LAST)
        results = await asyncio.gather(*tasks)
        everything = [fact.sequence for fact in await core.log.scan(0, 10_000)]
        of_p = [fact.sequence for fact in await core.log.scan(0, 10_000, "p")]
        for number, seen in enumerate(results):
            assert seen == (everything, of_p)[number % 2]
        feeds = (one.core.feed, two.core.feed)
        await eventually(lambda: not any(feed.connections for feed in feeds), "all have left")


async def test_a_client_that_hangs_up_is_forgotten_at_once(instance: Instance) -> None:
    async with Stream(instance.http_url, "/v1/events") as stream:
        await stream.until("caught_up")
    await eventually(lambda: not instance.core.feed.connections, "it has left", within_s=10)


async def test_shutting_down_closes_each_stream_and_does_not_wait(
    private_nats: PrivateServer, tmp_path: Path
) -> None:
    clock = asyncio.get_running_loop().time
    async with serving(private_nats.url, tmp_path / "one") as instance:
        streams = [Stream(instance.http_url, "/v1/events") for _ in range(5)]
        for stream in streams:
            await stream.__aenter__()
            await stream.until("caught_up")
        started = clock()
    assert clock() - started < 4  # uvicorn itself would wait for 5
    for stream in streams:
        closed = await stream.next()
        assert (closed.event, closed.json()) == ("closed", {"reason": "shutting_down"})
        await stream.__aexit__()


async def test_pings_keep_a_quiet_stream_alive_and_show_as_no_event(
    private_nats: PrivateServer, tmp_path: Path
) -> None:
    async with serving(private_nats.url, tmp_path / "one", heartbeat_s=0.05) as instance:
        await begin_plan(instance)
        async with (
            httpx.AsyncClient(base_url=instance.http_url, timeout=20) as client,
            client.stream("GET", "/v1/plans/p/events") as answer,
        ):
            pings = 0
            async for line in answer.aiter_lines():
                pings += line == ": ping"
                if pings == 3:
                    break
        async with Stream(instance.http_url, "/v1/plans/p/events") as stream:
            await stream.until("caught_up")
            quiet = asyncio.create_task(stream.next())
            await asyncio.wait([quiet], timeout=0.3)  # six pings long
            assert not quiet.done()
            quiet.cancel()
            await asyncio.wait([quiet])
