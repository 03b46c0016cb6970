"""The worker's own event loop: claims, heartbeats and results, on a thread without user code."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Raw

from holdfast_worker.claiming import Claiming
from holdfast_worker.failures import TaskCancelled, TaskFailed
from holdfast_worker.heartbeats import Heartbeats
from holdfast_worker.held import release_unknown
from holdfast_worker.lease import AttemptKey, Lease
from holdfast_worker.outcome import Completed, Failed, Outcome, stopped
from holdfast_worker.results import TOO_LARGE, Results
from holdfast_worker.running import Over, Runner
from holdfast_worker.session import Session
from holdfast_worker.task import Keep
from holdfast_worker.tokens import Usage
from holdfast_worker.wire import HoldfastError, Unreachable, task_path

CONFLICT = 409


class _Goodbye(msgspec.Struct, frozen=True):
    released: list[AttemptKey]


class ServiceLoop:
    """Runs one `Session` on a thread of its own, from `start` to `stop`."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.died: BaseException | None = None
        self.over = Event()  # set when the loop has ended, for whatever reason
        self._runner = Runner(self._ended, self._keep_for, session.notices)
        self._heartbeats = Heartbeats(session)
        self._claiming = Claiming(session, self._runner)
        self._results = Results(session, self._heartbeats)
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._run, name="holdfast-worker", daemon=True)
        self._stop = asyncio.Event()
        self._drain_s = 0.0
        self._hurry = asyncio.Event()
        self._finished: list[Over] = []
        self._lock = Lock()

    def start(self) -> None:
        """Begin to claim."""
        self._thread.start()

    def stop(self, drain_s: float) -> None:
        """Claim nothing more and let tasks end within ``drain_s`` seconds; a second call hurries.

        Returns at once; `over` is set when everything is released and said.
        """
        with suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._asked_to_stop, drain_s)

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until the loop has ended; answers whether it has."""
        return self.over.wait(timeout_s)

    # -- on the loop ------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._work())
        except BaseException as error:  # noqa: BLE001 - `Worker.run` raises it
            self.died = error
        finally:
            self._loop.close()
            self.over.set()

    async def _work(self) -> None:
        beats = asyncio.create_task(self._heartbeats.run())
        reports = asyncio.create_task(self._results.run())
        claims = asyncio.create_task(self._claiming.run())
        stop = asyncio.create_task(self._stop.wait())
        loops: list[asyncio.Task[Any]] = [beats, reports, claims, stop]
        try:
            await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            claims.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait([claims])
            self._claiming.give_back_unstarted()
            await self._drain(self._drain_s)
            await self._say_goodbye()
            for each in loops:
                if each.done() and not each.cancelled():
                    each.result()  # raises why it ended
        finally:
            for each in loops:
                each.cancel()
            await asyncio.wait(loops)
            self._runner.close()
            await self.session.wire.close()

    def _asked_to_stop(self, drain_s: float) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._drain_s = drain_s
        self._stop.set()

    # -- the end ----------------------------------------------------------------------------

    async def _drain(self, drain_s: float) -> None:
        """Let tasks end, then cancel the others; releases and results are reported meanwhile."""
        hurry = asyncio.create_task(self._hurry.wait())
        await self._until_settled(drain_s, hurry)
        hurry.cancel()
        for lease in list(self.session.leases.values()):
            lease.cancellation.cancel("draining")
        await self._until_settled(self.session.limits.grace_s + self.session.limits.goodbye_s, None)

    async def _until_settled(self, within_s: float, hurry: "asyncio.Task[bool] | None") -> None:
        until = monotonic() + within_s
        session = self.session
        while session.leases and (left_s := until - monotonic()) > 0:
            session.changed.clear()
            change = asyncio.create_task(session.changed.wait())
            waiting: list[asyncio.Task[Any]] = [change] if hurry is None else [change, hurry]
            await asyncio.wait(waiting, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            change.cancel()
            if hurry is not None and hurry.done():
                return

    async def _say_goodbye(self) -> None:
        """Give back whatever this owner still holds, such as a claim whose answer was lost."""
        session = self.session
        # Where no request was ever answered there is nothing to wait for.
        until = monotonic() + (session.limits.goodbye_s if session.wire.has_answered else 0.0)
        path = f"/v1/owners/{quote(session.owner, safe='')}/goodbye"
        try:
            answer = await session.wire.ask("POST", path, {}, kind=_Goodbye, until=lambda: until)
            if answer.route_is_missing:
                await release_unknown(session, "draining", lambda: until)
            elif answer.ok:
                self._given_back(answer.value.released)
            else:
                session.notices.warn("goodbye was refused: %s", answer.refusal)
        except HoldfastError as error:
            if session.wire.has_answered:
                session.notices.warn("goodbye was not heard, leases are left to expire: %s", error)
        for lease in list(session.leases.values()):
            session.lose(lease)  # its result can no longer be reported

    def _given_back(self, released: Sequence[AttemptKey]) -> None:
        session = self.session
        for each in released:
            lease = session.leases.get((each.plan_id, each.task_id, each.attempt))
            if lease is not None:
                session.counters.released += 1
                session.forget(lease)

    # -- from the handlers' threads ---------------------------------------------------------

    def _ended(self, over: Sequence[Over]) -> None:
        """Handlers have ended, on their own thread."""
        with self._lock:
            self._finished.extend(over)
            if len(self._finished) > len(over):
                return  # the loop is on its way to them
        with suppress(RuntimeError):  # the worker has stopped without it
            self._loop.call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        """Take what has ended: free the slots and queue the outcomes."""
        session = self.session
        # The next claim goes out before the results: its tasks run while the server stores these.
        session.changed.set()
        with self._lock:
            over, self._finished = self._finished, []
        for lease, outcome in over:
            session.running -= 1
            lease.handler_ended = True
            if session.leases.get(lease.key) is lease and not lease.ended:
                session.report(lease, _final(lease, outcome))

    def _keep_for(self, lease: Lease) -> Keep:
        def keep(key: str, value: Raw, usage: Usage | None) -> "Future[bool]":
            checkpoint = self._checkpoint(lease, key, value, usage)
            return asyncio.run_coroutine_threadsafe(checkpoint, self._loop)

        return keep

    async def _checkpoint(self, lease: Lease, key: str, value: Raw, usage: Usage | None) -> bool:
        """Store a checkpoint; False when the server keeps none."""
        session = self.session
        plan_id, task_id, attempt = lease.key
        body: dict[str, Any] = {"owner": session.owner, "attempt": attempt}
        body |= {"key": key, "value": value}
        if usage is not None:
            body["token_usage"] = usage
        path = task_path(plan_id, task_id, "checkpoint")
        asked_at = monotonic()
        try:
            answer = await session.wire.ask("POST", path, body, until=lambda: lease.fence_at)
        except Unreachable as error:
            lease.cancellation.cancel("lease_lost")
            raise TaskCancelled(f"the checkpoint {key!r} was not stored: {error}") from None
        if answer.ok:
            lease.renewed(asked_at)
            return True
        if answer.route_is_missing:
            return False
        if answer.status == CONFLICT:
            session.lose(lease)
            raise TaskCancelled(f"the checkpoint {key!r} was refused: {answer.refusal}")
        code = "too_large" if answer.status == TOO_LARGE else "bad_output"
        message = f"the checkpoint {key!r}: {answer.refusal.detail}"
        if answer.status == TOO_LARGE:
            message += "; keep large values elsewhere, and their place in the checkpoint"
        raise TaskFailed(code, message, retryable=False)


def _final(lease: Lease, outcome: Completed | Failed) -> Outcome:
    if not lease.cancellation.is_set():
        return outcome
    return stopped(lease.cancellation.reason, outcome, lease.run, lease.claim.timeout_s)
