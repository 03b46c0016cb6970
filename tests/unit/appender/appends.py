"""Drafts, and appends of many of them at once."""

import asyncio

from streams.jetstream.group_commit import Appender
from streams.log import Appended, Conflict, Draft
from tests.unit.appender.fake_log import STARTED, FakeLog


def draft(task_id: str, expected: int = 0, count: int = 1) -> Draft:
    return Draft(plan_id="p", task_id=task_id, expected=expected, events=(STARTED,) * count)


def begin(appender: Appender, name: str, count: int) -> list[asyncio.Future[Appended | Conflict]]:
    """Append so many drafts, each on a subject of its own, and wait for none."""
    return [appender.append(draft(f"{name}{n}")) for n in range(count)]


async def gather(appender: Appender, *drafts: Draft) -> list[Appended | Conflict]:
    return await asyncio.gather(*map(appender.append, drafts))


async def settled(log: FakeLog, sent: int) -> None:
    """Wait until so much has been sent."""
    async with asyncio.timeout(20):
        while len(log.sent) < sent:
            await asyncio.sleep(0)
