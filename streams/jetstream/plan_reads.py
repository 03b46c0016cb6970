"""Reads the facts of one plan: those of its own subject, and those of its tasks.

The tasks' subjects take a wildcard, and in a stream of more than 64,000 subjects nats-server looks
for a wildcard's next match block by block, with the stream locked: beyond a plan's last message
that is all of the log behind it. On 5 million facts it took 2 to 14 s, in which nothing could be
written. Only from the stream's first message on does the server go straight to a match. So the
tasks of a plan are read from there, and exactly as many messages as the leader counts.
"""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import chain
from math import inf
from typing import Generic, NamedTuple, TypeVar

from streams.jetstream.leadership import Patience
from streams.jetstream.messages import Reply
from streams.jetstream.names import Names
from streams.jetstream.reader import PAGE_MESSAGES, SCAN_WAITS_S, Reader, fact_of, message_of
from streams.log import BadFact, Fact, LogMessage, LogUnavailable
from streams.subjects import subject_of, tasks_of

M = TypeVar("M", Fact | BadFact, LogMessage)

Count = Callable[[str], Awaitable[int]]
"""How many messages a leader with a quorum has on a subject (a filter)."""


class FilterPage(NamedTuple, Generic[M]):
    """What a filter matches above a sequence, in order.

    ``more``: the filter matches further ones. ``is_whole``: these are all that the leader counted.
    """

    facts: list[M]
    more: bool
    is_whole: bool


class PlanReads:
    """Reads plans of one stream. Everything here raises LogUnavailable and nothing else."""

    def __init__(self, reader: Reader, count: Count, patience: Patience) -> None:
        self._reader = reader
        self._count = count
        self._patience = patience

    async def whole(self, plan_id: str, task_id: str | None) -> list[Fact | BadFact]:
        """All facts of a plan or of one task: at least as many of each subject as the leader has.

        What was complete is read again only if more has been written: each read is answered by a
        replica that NATS chooses, and all would have to meet one that does not lag.
        """
        filters = [subject_of(plan_id, task_id)]
        if task_id is None:
            filters.append(tasks_of(plan_id))
        found: dict[str, list[Fact | BadFact]] = {each: [] for each in filters}
        for wait_s in self._patience.lag_waits_s:
            await asyncio.sleep(wait_s)
            counts = {each: await self._count(each) for each in filters}
            for each, count in counts.items():
                if len(found[each]) < count:
                    found[each] = await self._reader.facts(each, count)
            if all(len(found[each]) >= count for each, count in counts.items()):
                return sorted(chain.from_iterable(found.values()), key=_sequence)
        raise LogUnavailable(f"the replicas that answer do not have all of {filters[0]}")

    async def facts(self, plan_id: str, after: int, limit: int) -> list[Fact | BadFact]:
        """The plan's next facts above ``after``; empty only if the leader has none."""
        subjects = [subject_of(plan_id), tasks_of(plan_id)]
        if facts := await self._reader.walks.take(subjects, after, limit):
            return facts
        facts, count = await self._next(plan_id, after, limit, fact_of)
        if len(facts) == limit and count > PAGE_MESSAGES:
            self._reader.walk_on(subjects, facts)
        return facts

    async def messages(self, plan_id: str, after: int, limit: int) -> list[LogMessage]:
        """`facts`, as the messages are stored."""
        return (await self._next(plan_id, after, limit, message_of))[0]

    async def _next(
        self, plan_id: str, after: int, limit: int, of: Callable[[Reply, Names], M]
    ) -> tuple[list[M], int]:
        """The next facts or messages, and how many messages the tasks have in all."""
        own, tasks = subject_of(plan_id), tasks_of(plan_id)
        for wait_s in SCAN_WAITS_S:
            # In this order, so that the tasks are counted when what stands beside them was written.
            pages = {own: await self._above(own, after, limit, of)}
            count = await self._count(tasks)
            pages[tasks] = await self._of_tasks(tasks, count, after, limit, of)
            if found := await self._merged(pages, after):
                return found[:limit], count
            unproven = [subject for subject, page in pages.items() if not page.is_whole]
            lags = any(page.more for page in pages.values())
            if not lags and not await self._reader.leader_has(unproven, after):
                return [], count
            await asyncio.sleep(wait_s)
        raise LogUnavailable(f"the replicas that answer do not get beyond sequence {after}")

    async def _of_tasks(
        self, tasks: str, count: int, after: int, limit: int, of: Callable[[Reply, Names], M]
    ) -> FilterPage[M]:
        if not count:
            return FilterPage([], more=False, is_whole=True)
        if after == 0 or count <= PAGE_MESSAGES:
            needed = PAGE_MESSAGES if after else limit
            page = await self._reader.page_from(tasks, 1, min(count, needed))
            facts = await self._reader.decoded(page.replies, of)
            above = [fact for fact in facts if fact.sequence > after]
            if len(facts) >= count:
                return FilterPage(above, more=False, is_whole=True)
            if above or not page.more:  # the page is full, or the replica lags
                return FilterPage(above, more=True, is_whole=False)
        return await self._above(tasks, after, limit, of)

    async def _above(
        self, subject: str, after: int, limit: int, of: Callable[[Reply, Names], M]
    ) -> FilterPage[M]:
        page = await self._reader.page_from(subject, after + 1, limit)
        facts = await self._reader.decoded(page.replies, of)
        return FilterPage(facts, more=page.more and bool(facts), is_whole=False)

    async def _merged(self, pages: dict[str, FilterPage[M]], after: int) -> list[M]:
        """What both filters have, up to where neither can miss a fact."""
        facts = sorted(chain.from_iterable(page.facts for page in pages.values()), key=_sequence)
        whole_up_to: float = inf
        for subject, page in pages.items():
            last = page.facts[-1].sequence if page.facts else after
            if page.more:
                whole_up_to = min(whole_up_to, last)
            elif not page.is_whole and facts and last < facts[-1].sequence:
                # Two replicas may have answered, and this one may lag behind the other.
                missing = await self._reader.proven_first_after(subject, last)
                if missing is not None:
                    whole_up_to = min(whole_up_to, missing - 1)
        return [fact for fact in facts if fact.sequence <= whole_up_to]


def _sequence(found: Fact | BadFact | LogMessage) -> int:
    return found.sequence
