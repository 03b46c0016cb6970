"""A stream that seems to end before what was read of it costs no rows until that is certain.

A server that is cut off from its cluster answers with its own, earlier end.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from projections.read_models import audit
from projections.read_models.audit_tail import AuditTail
from projections.read_models.database import ReadModelCheckpoint
from projections.read_models.pending import STREAM
from projections.read_models.restore import open_read_models, read_models_of
from streams.jetstream.audit_stream import TrailExtent, TrailMessage
from streams.log import LogState
from tests.memory_log import MemoryLog
from tests.waiting import eventually

READ = 5
EARLY = LogState(stream=STREAM, first=1, head=READ - 2, size_bytes=0, epoch="e", at=0.0)


async def test_read_models_are_kept_when_the_log_seems_to_end_before_them(tmp_path: Path) -> None:
    path = tmp_path / "readmodels.sqlite"
    database = await open_read_models(path)
    await database.write([], ReadModelCheckpoint(STREAM, READ, "e"))
    await database.close()
    asked: list[int] = []

    async def settled(known: int) -> LogState:
        asked.append(known)
        return replace(EARLY, head=READ)

    kept, sequence = await read_models_of(path, EARLY, settled, MemoryLog())
    await kept.close()
    assert (asked, sequence) == ([READ], READ)


class TrailOfAServerCutOff:
    """The stream AUDIT, whose end is an earlier one the first time that it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.read_after: list[int] = []

    async def ensure(self) -> None:
        """It is there."""

    async def extent(self) -> TrailExtent:
        self.asked += 1
        return TrailExtent("e", 1, READ - 2 if self.asked == 1 else READ)

    async def read(self, after: int, limit: int) -> Sequence[TrailMessage]:  # noqa: ARG002
        self.read_after.append(after)
        return []


async def test_audit_rows_are_kept_when_the_trail_seems_to_end_before_them(tmp_path: Path) -> None:
    database = await open_read_models(tmp_path / "readmodels.sqlite")
    await audit.apply(database, [], READ, "e")
    trail = TrailOfAServerCutOff()
    tail = asyncio.create_task(AuditTail(trail, database, lambda *_: None).run())
    try:
        await eventually(lambda: trail.asked > 2)
    finally:
        tail.cancel()
        await asyncio.wait([tail])
    checkpoint = await database.checkpoint(audit.STREAM)
    await database.close()
    assert checkpoint is not None
    assert checkpoint.sequence == READ
    assert trail.read_after == [], "nothing is read a second time"
