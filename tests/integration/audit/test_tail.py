"""How the rows of the audit trail follow the stream: past an old end of it, and after its rest."""

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from projections.read_models import audit
from projections.read_models.audit_tail import AuditTail, TailLimits
from projections.read_models.database import Database
from projections.read_models.restore import open_read_models
from streams.jetstream.audit_stream import TrailEntry, TrailExtent, TrailMessage
from tests.waiting import answered, eventually


class Trail:
    """A stream that names its ends as the test says; the last of them again and again."""

    def __init__(self, *heads: int) -> None:
        self._heads: Iterator[int] = iter(heads)
        self._head = 0
        self.asked = 0
        self.read_after: list[int] = []
        self.read_to = 0

    async def ensure(self) -> None:
        """It is there."""

    def grow(self) -> int:
        self._head += 1
        return self._head

    async def extent(self) -> TrailExtent:
        self.asked += 1
        self._head = next(self._heads, self._head)
        return TrailExtent("AUDIT@then", 1, self._head)

    async def read(self, after: int, limit: int) -> Sequence[TrailMessage]:
        self.read_after.append(after)
        self.read_to = last = min(self._head, after + limit)
        return [TrailMessage(n, "audit.x", f"{n}", b"no entry") for n in range(after + 1, last + 1)]


async def _is_stored(database: Database, end: int) -> bool:
    checkpoint = await database.checkpoint(audit.STREAM)
    return checkpoint is not None and checkpoint.sequence >= end


async def test_an_old_end_of_the_trail_costs_no_rows(tmp_path: Path) -> None:
    database = await open_read_models(tmp_path / "x.sqlite")
    first, second = Trail(2), Trail(1, 1, 3, 1, 1, 4)  # the second names an old end, twice
    for trail, has, end in ((first, 0, 2), (second, 2, 4)):
        tail = AuditTail(trail, database, lambda *_: None)
        following = asyncio.create_task(tail.run())
        await eventually(lambda trail=trail, end=end: trail.read_to == end, "it is read")
        await answered(partial(_is_stored, database, end), "it is stored")
        assert min(trail.read_after) == has, "nothing is read again"
        following.cancel()
        await asyncio.wait([following])
    await database.close()


async def test_a_stream_at_rest_is_looked_at_seldom_and_own_entries_end_the_rest(
    tmp_path: Path,
) -> None:
    database, trail = await open_read_models(tmp_path / "x.sqlite"), Trail(2)
    tail = AuditTail(trail, database, lambda *_: None, TailLimits(poll_s=0.01, rest_s=3_600))
    following = asyncio.create_task(tail.run())
    rests = 3  # asked when it began, when it trimmed the rows, and when it found nothing new
    await eventually(lambda: trail.asked == rests, "it has found nothing new")
    for _ in range(3):
        await asyncio.sleep(0.1)
        assert trail.asked == rests, "it rests"
        place = trail.grow()
        tail.stored([(place, _entry(place))])
        await answered(partial(_is_stored, database, place), "it is stored")
        rests += 2  # one look found it, the next one found nothing new
        await eventually(lambda rests=rests: trail.asked == rests, "it has found nothing new")
    assert trail.read_to == 2, "own entries are not read back"
    following.cancel()
    await asyncio.wait([following])
    await database.close()


def _entry(place: int) -> TrailEntry:
    payload = b'{"at":1,"event":"x","class":"always"}'
    return TrailEntry(id=f"{place}", event="x", subject="audit.x.~.~", payload=payload)
