"""`curl -N`: what the README tells people to type first."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from service.app import Instance
from tests.clients.outside import OutsidePlan
from tests.programs import program


class Curl:
    """A running curl; its output comes line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def until(self, line: str) -> list[str]:
        """What it prints, up to and with that line."""
        assert self._process.stdout is not None
        shown: list[str] = []
        async with asyncio.timeout(20):
            while not shown or shown[-1] != line:
                text = await self._process.stdout.readline()
                assert text, f"it ended before {line!r}: {shown}"
                shown.append(text.decode().rstrip("\r\n"))
        return shown

    async def ends(self) -> int:
        async with asyncio.timeout(20):
            return await self._process.wait()


@asynccontextmanager
async def curl(*arguments: str) -> AsyncIterator[Curl]:
    process = await asyncio.create_subprocess_exec(
        program("curl"), "-sS", "-N", *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Curl(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def ids(shown: list[str]) -> list[int]:
    return [int(line.removeprefix("id: ")) for line in shown if line.startswith("id: ")]


@pytest.mark.parametrize("version", ["--http1.1", "--http1.0"])
async def test_curl_shows_each_event_at_once_and_ends_with_the_plan(
    instance: Instance, version: str
) -> None:
    plan = await OutsidePlan.begin(instance.core, "p")
    async with curl(version, f"{instance.http_url}/v1/plans/p/events") as following:
        # A cursor from the start, also for who is cut off before the first event.
        assert ids(await following.until("event: caught_up")) == [0, 1, 2]
        for _ in range(5):
            sequence = await plan.progress()
            await following.until(f"id: {sequence}")
        await plan.finish()
        rest = await following.until('data: {"reason":"plan_finished"}')
        assert "event: plan.finished" in rest
        assert await following.ends() == 0


async def test_curl_resumes_by_header_or_query(instance: Instance) -> None:
    plan = await OutsidePlan.begin(instance.core, "p")
    await plan.progress(3)
    url = f"{instance.http_url}/v1/events"
    async with (
        curl("-H", "Last-Event-ID: 3", url) as by_header,
        curl(f"{url}?after=3") as by_query,
        curl("-H", "Last-Event-ID: 3", f"{url}?after=1") as by_both,
        curl(url) as by_neither,
    ):
        for resumed in (by_header, by_query, by_both):
            assert ids(await resumed.until("event: caught_up")) == [4, 5]
        assert ids(await by_neither.until("event: caught_up")) == [5], "a cursor, and no event"
        sequence = await plan.progress()
        for each in (by_header, by_query, by_both, by_neither):
            assert ids(await each.until("event: task.progress")) == [sequence]
