"""The kit's client: plans, steering, and events that survive a server's restarts."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from holdfast_worker import Client, Event, Gap, Refused, Task, Unreachable, Worker
from holdfast_worker.testing import Server
from tests.integration.kit_world import SHORT
from tests.unit.tokens_world import give

SLEEPER = {"id": "t", "kind": "sleep", "input": {"seconds": 0.05}}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with Client(server.url) as client:
        yield client


async def test_a_plan_is_submitted_steered_listed_and_explained(client: Client) -> None:
    waits = {"id": "t", "kind": "no_such_kind"}
    plan_id = (await client.submit({"labels": {"team": "kit"}, "tasks": [waits]})).plan_id
    assert (await client.pause(plan_id, "lunch")).status == "PAUSED"
    assert (await client.resume(plan_id)).status == "READY"
    assert "no_such_kind" in (await client.why(plan_id, "t")).answer
    assert (await client.why(plan_id)).reasons
    cancelled = await client.cancel(plan_id)
    assert cancelled.status == "CANCELLED"
    await client.get(plan_id, min_sequence=cancelled.sequence)
    labelled = [plan.plan_id async for plan in client.list(label="team=kit")]
    assert labelled == [plan_id]
    with pytest.raises(Refused, match="not_allowed"):
        await client.retry(plan_id, "t")
    with pytest.raises(Refused) as refused:
        await client.get("no-such-plan")
    assert (refused.value.status, refused.value.code) == (404, "not_found")


async def test_changes_bring_the_statuses_that_no_event_has(client: Client) -> None:
    tasks = [SLEEPER, {"id": "then", "kind": "no_such_kind", "depends_on": ["t"]}]
    submitted = await client.submit({"tasks": tasks})
    first = await client.changes(submitted.plan_id, min_sequence=submitted.sequence)
    assert {task.task_id for task in first.tasks} == {"t", "then"}
    seen, known = first.sequence, {task.task_id: task.status for task in first.tasks}
    async with aclosing(client.events(submitted.plan_id)) as events:
        async for event in events:
            assert isinstance(event, Event)
            changed = await client.changes(
                submitted.plan_id, after=seen, min_sequence=event.sequence
            )
            known |= {task.task_id: task.status for task in changed.tasks}
            seen = changed.sequence
            if known == {"t": "COMPLETED", "then": "READY"}:
                break
    assert (await client.changes(submitted.plan_id, after=seen)).tasks == []


async def test_a_submission_without_an_id_can_be_repeated(client: Client) -> None:
    plan = {"id": "twice", "tasks": [SLEEPER]}
    first, second = await client.submit(plan), await client.submit(plan)
    assert (first.created, second.created) == (True, False)
    assert first.plan_id == second.plan_id


@pytest.mark.timeout(180)  # the server is started again and again
async def test_events_come_once_and_in_order_through_restarts() -> None:
    with Server() as server:
        async with Client(server.url) as client:
            seen: list[Event | Gap] = []

            async def follow() -> None:
                async with aclosing(client.events(after=0)) as events:
                    async for event in events:
                        seen.append(event)
                        if len([e for e in seen if finished(e)]) == 3:
                            return

            following = asyncio.create_task(follow())
            for number in range(3):
                await client.submit({"id": f"p{number}", "tasks": [SLEEPER]})
                await client.wait(f"p{number}")
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
            await asyncio.wait_for(following, 20)
    sequences = [event.sequence for event in seen if isinstance(event, Event)]
    assert len(sequences) == len(seen)  # no gap
    assert sequences == list(range(1, sequences[-1] + 1))


def finished(event: Event | Gap) -> bool:
    return isinstance(event, Event) and event.type == "plan.finished"


async def test_a_cursor_of_another_log_is_a_gap(client: Client) -> None:
    async with aclosing(client.events(after=10**9)) as events:
        first = await anext(events)
    assert isinstance(first, Gap)
    assert (first.reason, first.requested) == ("ahead_of_log", 10**9)


async def test_a_stream_of_no_such_plan_is_refused(client: Client) -> None:
    with pytest.raises(Refused, match="not_found"):
        await anext(client.events("no-such-plan"))


async def test_a_server_that_is_not_there_is_named_after_the_clients_patience() -> None:
    async with Client("http://127.0.0.1:9", patience_s=0.3) as client:
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9 did not answer in time"):
            await client.get("p")


async def test_a_worker_and_a_client_have_tokens_and_another_name_is_refused(
    tmp_path: Path,
) -> None:
    file = tmp_path / "tokens.toml"
    operator, work = give(file, "ann", "operator"), give(file, "kit", "worker")
    with Server({"auth.tokens_file": str(file)}) as server:
        worker = Worker("kit", url=server.url, token=work, limits=SHORT)
        other = Worker("another", url=server.url, token=work, limits=SHORT)

        @worker.task("named")
        def named(task: Task) -> str:
            return task.kind

        other.include(named)
        async with Client(server.url, operator) as client:
            with worker:
                plan_id = (await client.submit({"tasks": [{"id": "t", "kind": "named"}]})).plan_id
                plan = await client.wait(plan_id)
        assert plan.status == "COMPLETED"
        assert other.start().join(20)
        with pytest.raises(Refused, match="the token's name is 'kit'"):
            other.stop()
