"""The executor from claim to result, on a core in memory."""

from streams.plan import commands
from tests.unit.executor_world import executing, json_of, spec


async def test_a_task_is_claimed_started_and_completed() -> None:
    async with executing() as world:
        world.core.submit("p", spec("t", "echo", {"a": [1, 2]}))
        task = await world.finished("p", "t")
    assert json_of(task.output) == {"a": [1, 2]}
    assert [type(word) for word in world.core.said] == [commands.Start, commands.Complete]
    assert world.core.origins[0].actor == "w1"
    assert world.core.origins[0].instance == "instance-1"
    assert world.metrics.counts["agent.task.dispatch.success.total"] == 1
    (latency_s,) = world.metrics.observed["agent.task.claim_to_start.latency"]
    assert 0 <= latency_s < 2


async def test_only_kinds_with_a_handler_are_claimed() -> None:
    async with executing() as world:
        world.core.submit("p", spec("ours", "echo"), spec("theirs", "unheard-of"))
        await world.finished("p", "ours")
        assert world.core.task("p", "theirs").attempt == 0
        assert "unheard-of" not in (world.core.requests[0].kinds or ())
