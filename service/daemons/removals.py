"""Removes the messages of forgotten plans: those at the log's beginning at once, others by plan.

A plan alone takes two purges, which cost nats-server 0.4 ms, whatever its size. Where the log
begins with nothing but facts of forgotten plans, one purge removes all of them. So plans wait a
moment for the log's beginning to reach them; what lies behind a plan that is kept goes alone.

What is below the new beginning is read before: only facts of plans that are known to be forgotten
leave the log in this way. The first other message ends it: one that cannot be read, or one of a
plan that is not in the list. It stays, and the plans behind it are removed alone.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec
import structlog

from projections.read_models import forgetting
from projections.read_models.database import Database
from projections.read_models.forgetting import Removal
from streams.log import BadFact, Fact, Log, LogState
from streams.plan.fold import forgets
from streams.plan.limits import FORGOTTEN_S

log = structlog.get_logger("holdfast.retention")


class RemovalLimits(msgspec.Struct, frozen=True, kw_only=True):
    """A forgotten plan waits ``wait_s`` to be removed, or until ``together`` plans wait.

    The log's beginning is removed if that takes ``worth`` plans or more: the server writes its
    index of subjects down then and lets nothing else be written, for 0.3 s on 5 million messages,
    however many are removed. At most ``read`` facts are read for it, ``page`` at once. Else plans
    are removed alone, ``alone`` of them before that is written down. The fact that forgets a plan
    is removed ``forgotten_s`` later.
    """

    together: int = 100_000
    worth: int = 1_000
    read: int = 1_000_000
    page: int = 1_000
    alone: int = 200
    wait_s: float = 10.0
    forgotten_s: float = FORGOTTEN_S


class Purges(Protocol):
    """What may remove messages (`streams.jetstream.forgetting.Purger`). Raises LogUnavailable."""

    async def remove(self, below: Mapping[str, int], *, tasks: bool = True) -> int:
        """Remove what stands of plans, by id, below a sequence; answers how many messages."""
        ...

    async def remove_beginning(self, below: int) -> int:
        """Remove everything that stands below a sequence; answers how many messages it was."""
        ...


class Removals:
    """Works off the list of forgotten plans of one instance, which others may do as well.

    ``note`` notes in the log up to where facts may be missing; it is raised before any is removed.
    """

    def __init__(
        self,
        source: Log,
        database: Database,
        now: Callable[[], float],
        note: Callable[[int], Awaitable[None]],
        limits: RemovalLimits,
    ) -> None:
        self._source = source
        self._database = database
        self._now = now
        self._note = note
        self._limits = limits

    async def work(self, purger: Purges, *, much: bool = False) -> None:
        """Remove what waits: once that is ``much``, or what has waited for long enough as well.

        Raises DatabaseUnavailable, LogUnavailable, LogReset.
        """
        while await self._is_due(much=much):
            if not await self._some(purger):
                return

    async def _is_due(self, *, much: bool) -> bool:
        limits, now = self._limits, self._now()
        if await forgetting.is_waiting(self._database, limits.together):
            return True
        if much:
            return False
        since = now - limits.wait_s
        return await forgetting.has_waited(self._database, since, since - limits.forgotten_s)

    async def _some(self, purger: Purges) -> bool:
        """Remove the next plans; False if nothing can be removed now."""
        limits, now = self._limits, self._now()
        state = await self._source.state()
        left = await forgetting.to_remove(self._database, limits.together)
        free = await forgetting.to_free(self._database, self._free_before(now), limits.together)
        # The log's last message stays: a stream without one would have no beginning.
        free = [each for each in free if each.tombstone.sequence < state.head]
        is_full = limits.together in (len(left), len(free))
        todo = [*left, *free]
        new = await self._new_beginning(todo, state, now)
        gone = [each for each in todo if each.last < new.first]
        if new.first > state.first:
            await self._note(new.reach)
            facts = await purger.remove_beginning(new.first)
            log.info("facts_removed", plans=len(gone), facts=facts, below=new.first)
        if gone:
            await forgetting.settled(self._database, gone)
            return True
        alone = todo if is_full else [each for each in todo if self._has_waited(each, now)]
        for start in range(0, len(alone), limits.alone):
            await self._remove_alone(purger, alone[start : start + limits.alone])
        return bool(alone)

    async def _remove_alone(self, purger: Purges, which: Sequence[Removal]) -> None:
        plans, freed = dict[str, int](), dict[str, int]()
        for each in which:
            below = freed if each.is_free else plans
            plan_id = each.tombstone.plan_id
            if reach := each.reach or await self._reach_of(each):
                below[plan_id] = max(below.get(plan_id, 0), reach + 1)
        await self._note(max([*plans.values(), *freed.values()], default=1) - 1)
        facts = await purger.remove(plans) if plans else 0
        # What stands on its tasks now came after the plan was judged, and is evidence of something.
        facts += await purger.remove(freed, tasks=False) if freed else 0
        log.info("facts_removed", plans=len(which), facts=facts)
        await forgetting.settled(self._database, which)

    async def _reach_of(self, each: Removal) -> int:
        """How far the messages reach that the log still has of a plan; 0: it has none."""
        facts = await self._source.read(each.tombstone.plan_id, up_to=each.last)
        return facts[-1].sequence if facts else 0

    # -- the log's beginning ----------------------------------------------------------------

    async def _new_beginning(
        self, todo: Sequence[Removal], state: LogState, now: float
    ) -> "_Beginning":
        """Where the log can begin; where it begins now if it is not worth to move that."""
        unmoved = _Beginning(state.first, 0)

        def worth(first: int) -> bool:
            return sum(state.first <= each.last < first for each in todo) >= self._limits.worth

        checkpoint = await self._database.checkpoint()
        if checkpoint is None or checkpoint.epoch != state.epoch:
            return unmoved
        stays = await forgetting.stays_from(self._database, self._free_before(now))
        bound = min(stays or state.head, checkpoint.sequence + 1, state.head)
        if not worth(bound):
            return unmoved
        new = await self._after_the_forgotten(todo, state.first, bound)
        return new if worth(new.first) else unmoved

    async def _after_the_forgotten(
        self, todo: Sequence[Removal], first: int, bound: int
    ) -> "_Beginning":
        """Read on while there are only facts of forgotten plans, up to ``bound`` at most."""
        limits, found = self._limits, _Forgotten(todo)
        begin = first
        for _ in range(0, limits.read, limits.page):
            page = await self._source.scan(begin - 1, limits.page)
            for fact in page:
                if fact.sequence >= bound or not found.has(fact):
                    begin = min(fact.sequence, bound)
                    return _Beginning(begin, max(begin - 1, found.reach))
            if not page:
                break
            begin = page[-1].sequence + 1
        # Not beyond the last fact that was read: a beginning is a message that was seen.
        return _Beginning(begin - 1, max(begin - 2, found.reach))

    # -- time -------------------------------------------------------------------------------

    def _free_before(self, now: float) -> float:
        return now - self._limits.forgotten_s

    def _has_waited(self, each: Removal, now: float) -> bool:
        since = self._free_before(now) if each.is_free else now
        return each.tombstone.at < since - self._limits.wait_s


class _Beginning(NamedTuple):
    """Where a log begins, and how far plans reach of which something is missing then."""

    first: int
    reach: int


class _Forgotten:
    """What may leave the log, by the list of forgotten plans; and how far these plans reach."""

    def __init__(self, which: Sequence[Removal]) -> None:
        self.reach = 0  # of the plans of which facts were met
        self._free = {each.tombstone.sequence for each in which if each.is_free}
        self._newest: dict[str, Removal] = {}
        for each in which:  # in the order of their sequences, the free ones last
            known = self._newest.get(each.tombstone.plan_id)
            if known is None or known.tombstone.sequence < each.tombstone.sequence:
                self._newest[each.tombstone.plan_id] = each

    def has(self, fact: Fact | BadFact) -> bool:
        """Whether it is known that the fact may leave the log."""
        if isinstance(fact, BadFact):
            return False
        if forgets(fact):
            return fact.sequence in self._free
        plan = self._newest.get(fact.plan_id)
        if plan is None or plan.tombstone.sequence < fact.sequence:
            return False
        self.reach = max(self.reach, plan.last)
        return True
