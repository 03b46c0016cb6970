"""The trouble behind each alert, done for real, and the remedy that the runbook names.

A story is a generator: it does its fault and yields; when the alert fires it goes on and applies
the remedy. Until then it may have to keep the trouble up, which it does on a thread (`Again`).
"""

import asyncio
import itertools
import json
import os
import select
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import nats

from service.runtime.data_folder import READ_MODELS
from tests.conftest import PrivateServer
from tests.faults.delaying_proxy import DelayingProxy
from tests.faults.replicated_log import ReplicatedLog
from tests.faults.service_process import ServiceProcess, run_holdfast, until

Story = Callable[["Place"], Generator[None]]
Json = dict[str, Any]

LONG_LEASE_S = 600.0
UNFINISHED_BYTES = 2_300_000


class Again:
    """Repeats ``deed`` on a thread until the block ends; a failure of it is one of the test."""

    def __init__(self, deed: Callable[[], object], pause_s: float = 0.0) -> None:
        self._deed = deed
        self._pause_s = pause_s
        self._over = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while not self._over.wait(self._pause_s):
            try:
                self._deed()
            except Exception as error:  # noqa: BLE001 - told where the block ends
                self._error = error
                return


class Place:
    """Where stories happen: an instance, its log, and what an operator or a worker may do there."""

    def __init__(
        self,
        service: ServiceProcess,
        log: PrivateServer,
        proxy: DelayingProxy,
        replicated: ReplicatedLog | None = None,
    ) -> None:
        """``replicated`` is used in place of ``log`` where it is given."""
        self.service = service
        self.replicated = replicated
        self.log = log
        self.proxy = proxy
        self._names = itertools.count(1)
        self._client = httpx.Client(timeout=30)

    @property
    def read_models(self) -> Path:
        return self.service.data_dir / READ_MODELS

    def say(self, path: str, **body: object) -> httpx.Response:
        return self._client.post(f"{self.service.url}{path}", json=body)

    def submit(self, tasks: int = 1, **spec: object) -> str:
        """A new plan of so many equal tasks that wait for an outside worker, unless told else."""
        plan_id = f"p{next(self._names)}"
        each = {"kind": "outside", "max_lost_leases": 100} | spec
        wanted = [{"id": f"t{number}", **each} for number in range(tasks)]
        self.say("/v1/plans", id=plan_id, tasks=wanted).raise_for_status()
        return plan_id

    def claim(self, owner: str, limit: int = 1, lease_s: float = LONG_LEASE_S) -> list[Json]:
        answer = self.say(
            "/v1/claims", owner=owner, kinds=["outside"], limit=limit, lease_s=lease_s
        )
        return answer.raise_for_status().json()["claims"]

    def own(self, word: str, owner: str, lease: Json, **said: object) -> httpx.Response:
        path = f"/v1/plans/{lease['plan_id']}/tasks/{lease['task_id']}/{word}"
        return self.say(path, owner=owner, attempt=lease["attempt"], **said)

    def cancel(self, plan_id: str) -> None:
        self.say(f"/v1/plans/{plan_id}/cancel", reason="the story is over").raise_for_status()

    def publish(self, subject: str, payload: bytes) -> None:
        """`nats publish`, with an answer from the log."""
        self.ask_log(subject, payload)

    def limit_stream(self, name: str, **limits: int) -> None:
        """`nats stream edit`."""
        info = self.ask_log(f"$JS.API.STREAM.INFO.{name}", b"")
        wanted = json.dumps(info["config"] | limits).encode()
        answer = self.ask_log(f"$JS.API.STREAM.UPDATE.{name}", wanted)
        assert "error" not in answer, answer

    def ask_log(self, subject: str, payload: bytes = b"") -> Json:
        """One request to NATS; its answer."""

        async def ask() -> Json:
            connection = await nats.connect(self.log.url, allow_reconnect=False)
            try:
                return json.loads((await connection.request(subject, payload, 5)).data)
            finally:
                await connection.close()

        return asyncio.run(ask())

    @contextmanager
    def reader(
        self, after: int, *, plan_id: str = "", reads: bool = True
    ) -> Iterator[socket.socket]:
        """A bare client of the event stream; one that does not read takes only a few kB."""
        parts = urlsplit(self.service.url)
        chosen = f"&plan_id={plan_id}" if plan_id else ""
        with socket.socket() as connection:
            if not reads:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((parts.hostname, parts.port))
            asked = f"GET /v1/events?after={after}{chosen} HTTP/1.1"
            connection.sendall(f"{asked}\r\nHost: {parts.netloc}\r\n\r\n".encode())
            yield connection

    def close(self) -> None:
        self._client.close()


# -- claiming and capacity ----------------------------------------------------------------------


def claim_starved(place: Place) -> Generator[None]:
    """A task of a kind without a worker; then a worker for it comes."""
    place.submit()
    yield
    (lease,) = place.claim("w")
    place.own("complete", "w", lease).raise_for_status()


def claim_spinning(place: Place) -> Generator[None]:
    """A worker polls in a loop instead of waiting; then it waits.

    Four that pause ask three times as often as the alert needs, and leave the machine to others.
    """
    with ExitStack() as pollers:
        for _ in range(4):
            pollers.enter_context(Again(lambda: place.claim("poller"), pause_s=0.02))
        yield


def dispatch_rejecting(place: Place) -> Generator[None]:
    """One slot, held by slow tasks while others wait; then load is shed."""
    plan_id = place.submit(3, kind="sleep", input={"seconds": LONG_LEASE_S}, timeout_s=LONG_LEASE_S)
    yield
    place.cancel(plan_id)


def handlers_overrun(place: Place) -> Generator[None]:
    """A handler blocks beyond its time-out; the instance is restarted, which frees the thread."""
    place.submit(1, kind="blocks", input={"seconds": LONG_LEASE_S}, timeout_s=0.5, max_retries=0)
    yield
    place.service.terminate()
    place.service.start()


def backlog_growing(place: Place) -> Generator[None]:
    """More and more tasks and no workers; then workers come."""
    place.submit(120)
    with Again(lambda: place.submit(10), pause_s=0.5):
        yield
    while leases := place.claim("w", limit=500):
        results = [
            {key: lease[key] for key in ("plan_id", "task_id", "attempt")}
            | {"outcome": "completed", "output": None}
            for lease in leases
        ]
        place.say("/v1/results", owner="w", results=results).raise_for_status()


def unfinished_bytes_high(place: Place) -> Generator[None]:
    """Plans whose inputs nearly take the memory that they may, and no workers; then they go."""
    plans = [place.submit(input={"text": "x" * 400_000}) for _ in range(5)]
    yield
    for plan_id in plans:
        place.cancel(plan_id)


# -- leases ---------------------------------------------------------------------------------------


def leases_expired(place: Place) -> Generator[None]:
    """The only worker dies with its lease; then another one comes."""
    place.submit()
    place.claim("dead", lease_s=0.5)
    yield
    (lease,) = place.claim("other")
    place.own("complete", "other", lease).raise_for_status()


def lease_margin_low(place: Place) -> Generator[None]:
    """A worker renews when little is left; then it renews in time."""
    place.submit()
    (lease,) = place.claim("late", lease_s=6)
    with Again(lambda: place.own("heartbeat", "late", lease).raise_for_status(), pause_s=5.0):
        yield
    with Again(lambda: place.own("heartbeat", "late", lease).raise_for_status(), pause_s=0.3):
        yield
    place.own("complete", "late", lease).raise_for_status()


def stale_writers(place: Place) -> Generator[None]:
    """A worker sleeps past its lease and reports when another has the task; then it stops."""
    place.submit()
    (stale,) = place.claim("zombie", lease_s=0.5)
    fresh = until(lambda: place.claim("other"), 10, "the lease is taken over")
    assert place.own("complete", "zombie", stale).status_code == httpx.codes.CONFLICT
    place.own("complete", "other", fresh[0]).raise_for_status()
    yield


# -- server-sent events -----------------------------------------------------------------------


def sse_push_failing(place: Place) -> Generator[None]:
    """Clients connect and never read, again when they are ended; then they are gone."""
    place.submit(20, input={"text": "x" * 40_000})
    gone = threading.Event()

    def freeze() -> None:
        with place.reader(after=0, reads=False) as client:
            ended = select.poll()
            ended.register(client, select.POLLRDHUP)
            while not gone.is_set() and not ended.poll(200):
                pass

    with ExitStack() as clients:
        for _ in range(8):
            clients.enter_context(Again(freeze))
        yield
        gone.set()


def sse_resume_gaps(place: Place) -> Generator[None]:
    """A client comes with the cursor of another log; then it begins anew."""
    with place.reader(after=10**9) as client:
        until(lambda: b"ahead_of_log" in client.recv(65536), 10, "the gap is sent")
    yield


def sse_replay_slow(place: Place) -> Generator[None]:
    """The log answers late while clients resume; then it is quick again."""
    # Each follows another plan: clients of the same plan share a read.
    plans = [place.submit() for _ in range(60)]
    asked = itertools.cycle(plans)
    place.proxy.delay_s = 1.5

    def resume() -> None:
        with place.reader(after=1, plan_id=next(asked)) as client:
            client.settimeout(60)
            said = b""
            while b"caught_up" not in said and (data := client.recv(65536)):
                said += data

    with ExitStack() as clients:
        for _ in range(6):
            clients.enter_context(Again(resume))
        yield
    place.proxy.delay_s = 0.0


# -- the internals -----------------------------------------------------------------------------


def stutter(place: Place) -> Generator[None]:
    """The process gets no processor time again and again; then it gets it."""

    def stop_for_a_while() -> None:
        place.service.send(signal.SIGSTOP)
        time.sleep(1.2)
        place.service.send(signal.SIGCONT)

    with Again(stop_for_a_while, pause_s=0.5):
        yield


def projection_lagging(place: Place) -> Generator[None]:
    """Another process locks the database; then unlocks it."""
    holder = sqlite3.connect(place.read_models, isolation_level=None, timeout=10)
    holder.execute("BEGIN EXCLUSIVE")
    plan_id = place.submit()
    yield
    holder.execute("ROLLBACK")
    holder.close()
    place.cancel(plan_id)


def bad_events(place: Place) -> Generator[None]:
    """A client publishes to the log by hand, and stops."""
    place.publish("plans.by-hand", b"this is no fact")
    yield


def log_unavailable(place: Place) -> Generator[None]:
    """The server of the log freezes; then it goes on."""
    place.log.pause()
    yield
    place.log.resume()


def replica_behind(place: Place) -> Generator[None]:
    """One of three servers dies; then it is started again and catches up."""
    assert place.replicated is not None
    node = place.replicated.nodes[3]
    node.kill()
    yield
    node.start()


def log_nearly_full(place: Place) -> Generator[None]:
    """The log is bounded closely above what it holds; then it gets room."""
    place.cancel(place.submit())
    info = place.ask_log("$JS.API.STREAM.INFO.PLANS")
    place.limit_stream("PLANS", max_bytes=int(info["state"]["bytes"] / 0.85))
    yield
    place.limit_stream("PLANS", max_bytes=-1)


def log_full(place: Place) -> Generator[None]:
    """The log reaches its limit; then the limit is lifted."""
    plan_id = place.submit()
    place.limit_stream("PLANS", max_bytes=1)
    answer = place.say(f"/v1/plans/{plan_id}/pause", reason="full")
    assert answer.status_code == httpx.codes.INSUFFICIENT_STORAGE, answer.text
    yield
    place.limit_stream("PLANS", max_bytes=-1)
    place.cancel(plan_id)


def audit_dropped(place: Place) -> Generator[None]:
    """The trail's stream refuses entries; then it takes them again."""
    place.limit_stream("AUDIT", max_msg_size=10)
    place.cancel(place.submit())
    yield
    place.limit_stream("AUDIT", max_msg_size=-1)


def projection_mismatch(place: Place) -> Generator[None]:
    """A program writes into the database by hand; then the read models are made anew."""
    place.submit(5)
    with closing(sqlite3.connect(place.read_models, isolation_level=None, timeout=10)) as by_hand:
        until(
            lambda: by_hand.execute("UPDATE tasks SET retry = 7").rowcount > 0,
            10,
            "there is a row to change",
        )
    yield
    assert place.service.terminate() == 0
    code, said = run_holdfast(
        "rebuild", data_dir=str(place.service.data_dir), nats__url=place.proxy.url
    )
    assert code == 0, said
    place.service.start()


def metrics_missing(place: Place) -> Generator[None]:
    """The process freezes; then it goes on."""
    os.kill(place.service.pid, signal.SIGSTOP)
    yield
    os.kill(place.service.pid, signal.SIGCONT)
