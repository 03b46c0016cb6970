"""Reads the SQLite file on threads of its own: one read is one transaction.

Rows become views on those threads, too, so a large answer does not hold the event loop. A reader
that failed is replaced: its connection is closed, and its next read opens the file anew. (A query
that ends while its cursor is open leaves its connection "interrupted" until Python collects it.)
"""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from queue import SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")
Query = Callable[[sqlite3.Connection], T]
"""What is done on a reader's thread, inside one transaction; its statements see one moment."""

READER_WAIT_S = 5.0
CLOSING_S = 1.0


class _Job(NamedTuple, Generic[T]):
    query: Query[T]
    answer: "asyncio.Future[T]"
    loop: asyncio.AbstractEventLoop


class _Reader:
    """One connection, opened when it is needed, and its thread."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()  # a connection that is being closed must not be interrupted
        self._jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        # A daemon: a disk that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="sqlite reader", daemon=True)
        self._thread.start()

    def run(self, query: Query[T]) -> "asyncio.Future[T]":
        """Run ``query`` after what runs already."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(query, answer, loop))
        return answer

    def interrupt(self) -> None:
        """End the query that runs, if one does."""
        with self._lock:
            if self._connection is not None:
                self._connection.interrupt()

    def drop(self) -> None:
        """Close the file; the next read opens it anew. Only while nothing runs."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                with suppress(sqlite3.Error):
                    connection.close()

    def close(self) -> None:
        """End the thread once what runs has ended, and wait for that, at most CLOSING_S."""
        self.interrupt()
        self._jobs.put(None)
        self._thread.join(CLOSING_S)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                result, error = self._in_transaction(job.query), None
            except BaseException as failure:  # noqa: BLE001 - the asker gets it
                result, error = None, failure
                self.drop()
            with suppress(RuntimeError):  # the loop has ended, and the asker with it
                job.loop.call_soon_threadsafe(_settle, job.answer, result, error)
            del job, result, error
        self.drop()

    def _in_transaction(self, query: Query[T]) -> T:
        if self._connection is None:
            self._connection = self._connect()
        self._connection.execute("BEGIN")
        result = query(self._connection)
        self._connection.execute("ROLLBACK")
        return result


def _settle(answer: "asyncio.Future[T]", result: T, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)


class Readers:
    """A few readers of one file, for one event loop; ``connect`` opens it, on a reader's thread."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], count: int) -> None:
        self._readers = [_Reader(connect) for _ in range(count)]
        self._idle: asyncio.Queue[_Reader] = asyncio.Queue()
        for reader in self._readers:
            self._idle.put_nowait(reader)
        self._closed = False

    def __len__(self) -> int:
        """How many reads may run at a time."""
        return len(self._readers)

    async def run(self, query: Query[T], within_s: float) -> T:
        """The answer of ``query``. Raises what it raises, and TimeoutError.

        It waits for a free reader at most READER_WAIT_S, and for the answer at most ``within_s``.
        """
        if self._closed:
            raise sqlite3.ProgrammingError("the database is closed")
        async with asyncio.timeout(READER_WAIT_S):
            reader = await self._idle.get()
        answer = reader.run(query)
        answer.add_done_callback(lambda _: self._idle.put_nowait(reader))
        try:
            async with asyncio.timeout(within_s):
                return await asyncio.shield(answer)
        except (TimeoutError, asyncio.CancelledError):
            answer.add_done_callback(_take_note)
            reader.interrupt()
            raise

    @asynccontextmanager
    async def paused(self) -> AsyncGenerator[None]:
        """Nothing is read, and no reader has the file open; later reads open it anew."""
        held: list[_Reader] = []
        try:
            for _ in self._readers:
                held.append(await self._idle.get())  # noqa: PERF401 - those must go back, too
            await asyncio.gather(*(asyncio.to_thread(reader.drop) for reader in held))
            yield
        finally:
            for reader in held:
                self._idle.put_nowait(reader)

    async def close(self) -> None:
        """Close the file once what runs has ended; a later `run` is refused."""
        self._closed = True
        # The writer that closes last moves what was written ahead into the file.
        await asyncio.gather(*(asyncio.to_thread(each.close) for each in self._readers))


def _take_note(answer: "asyncio.Future[Any]") -> None:
    """Mark the error of an answer as seen: its asker has stopped waiting."""
    if not answer.cancelled():
        answer.exception()
