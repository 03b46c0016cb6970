"""The reference store of snapshots: the same promises in one process, with faults on demand."""

import time
from collections.abc import AsyncGenerator, Callable, Sequence

from streams.snapshot_store import KeptSnapshot, ReadModelSnapshot, SnapshotUnavailable
from streams.subjects import NEWEST_SNAPSHOT, SNAPSHOT_PLACES

PAGE = 8


class MemorySnapshots:
    """`streams.snapshot_store.SnapshotStore` without a server, for any number of processes.

    Tests also use `messages` (subject and payload, by sequence), `alive_s`, `fault` (why
    nothing answers), and ``on_piece``, which is called before each piece that is kept or read.
    """

    def __init__(self, *, max_bytes: int = 1 << 30, clock: Callable[[], float] = time.time) -> None:
        self.messages: dict[int, tuple[str, bytes]] = {}
        self.last = 0
        self.last_at = 0.0
        self.alive_s = 60.0
        self.fault: str | None = None
        self.on_piece: Callable[[], None] = lambda: None
        self.opened = self.closed = 0
        self.clock = clock
        self.max_bytes = max_bytes
        self._newest: KeptSnapshot | None = None

    async def open(self) -> "MemorySnapshots":
        """What opens the store for a process."""
        if self.fault is not None:
            raise SnapshotUnavailable(self.fault)
        self.opened += 1
        return self

    async def close(self) -> None:
        """See `SnapshotStore`."""
        self.closed += 1

    async def newest(self) -> KeptSnapshot | None:
        """See `SnapshotStore`."""
        return self._newest

    async def begin(self) -> "MemoryWriting | None":
        """See `SnapshotStore`."""
        kept = self._newest
        is_whole = kept is not None and self.last == kept.first + kept.pieces
        if self.last and not is_whole and self.clock() - self.last_at < self.alive_s:
            return None
        place = next(each for each in SNAPSHOT_PLACES if kept is None or each != kept.subject)
        writing = MemoryWriting(self, place)
        await writing.renew()
        return writing

    async def pieces(self, kept: KeptSnapshot) -> AsyncGenerator[Sequence[bytes]]:
        """See `SnapshotStore`."""
        places = range(kept.first, kept.first + kept.pieces)
        for start in range(0, len(places), PAGE):
            page: list[bytes] = []
            for place in places[start : start + PAGE]:
                self.on_piece()
                subject, piece = self.messages.get(place, ("", b""))
                if subject != kept.subject:
                    raise SnapshotUnavailable(f"its piece at sequence {place} is gone")
                page.append(piece)
            yield page

    def finish(self, kept: KeptSnapshot) -> None:
        """Let it be the newest one."""
        self._newest = kept

    def store(self, subject: str, payload: bytes, *, rolls_up: bool) -> int:
        """Keep one message; answers its sequence."""
        if rolls_up:
            for place in [n for n, (found, _) in self.messages.items() if found == subject]:
                del self.messages[place]
        self.last += 1
        self.last_at = self.clock()
        self.messages[self.last] = (subject, payload)
        return self.last


class MemoryWriting:
    """`streams.snapshot_store.SnapshotWriting` without a server."""

    piece_bytes = 4096

    def __init__(self, store: MemorySnapshots, subject: str) -> None:
        self._store = store
        self._subject = subject
        self._last = store.last
        self._first = 0
        self._bytes = 0

    async def renew(self) -> None:
        """See `SnapshotWriting`."""
        if self._first:
            raise ValueError("it would remove the pieces")
        self._publish(self._subject, b"", rolls_up=True)

    async def add(self, piece: bytes) -> None:
        """See `SnapshotWriting`."""
        self._store.on_piece()
        self._bytes += len(piece)
        if self._bytes > self._store.max_bytes // 2:
            raise SnapshotUnavailable("it is too large: raise snapshots.max_bytes")
        self._publish(self._subject, piece, rolls_up=False)
        self._first = self._first or self._last

    async def finish(self, snapshot: ReadModelSnapshot) -> None:
        """See `SnapshotWriting`."""
        pieces = self._last + 1 - self._first if self._first else 0
        kept = KeptSnapshot(
            snapshot=snapshot, subject=self._subject, first=self._first, pieces=pieces
        )
        self._publish(NEWEST_SNAPSHOT, b"", rolls_up=True)
        self._store.finish(kept)

    def _publish(self, subject: str, payload: bytes, *, rolls_up: bool) -> None:
        if self._store.fault is not None:
            raise SnapshotUnavailable(self._store.fault)
        if self._store.last != self._last:
            raise SnapshotUnavailable("another process writes a snapshot")
        self._last = self._store.store(subject, payload, rolls_up=rolls_up)
