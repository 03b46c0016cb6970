"""How attempts of a worker end when its lease does, and that its counters are those of the log."""

import threading
import time
from typing import Any

import msgspec
import pytest

from holdfast_worker import Limits, Task, Worker
from holdfast_worker.counters import Counters
from holdfast_worker.handler import Handler
from holdfast_worker.heartbeats import Heartbeats
from holdfast_worker.lease import Claim, Lease
from holdfast_worker.logs import Notices
from holdfast_worker.session import Session
from holdfast_worker.wire import Wire
from tests.busy import stretch
from tests.unit.kit_world import SHORT, Answer, ScriptedServer, claim, problem
from tests.waiting import until

LEASE_S = 1.5
BEAT_S = LEASE_S / 3
FENCE_S = LEASE_S * 2 / 3
UNAVAILABLE = problem(503, "log_unavailable")
REFUSED = {"status": "guard_reject", "current": {"status": "RUNNING", "owner": "o", "attempt": 2}}


def refused(body: Any, items: str) -> Answer:
    return 200, {"results": [REFUSED for _ in body[items]]}


class Waiting:
    """A worker with one handler, which waits for its cancellation."""

    def __init__(self, server: ScriptedServer, limits: Limits = SHORT) -> None:
        self.stopped_at = 0.0
        self.reason: str | None = None
        self.began = threading.Event()
        self.worker = Worker("unit", url=server.url, limits=limits)
        self.worker.task("k")(self._wait)

    def _wait(self, task: Task) -> None:
        self.began.set()
        if task.cancelled.wait(20):
            self.stopped_at, self.reason = time.monotonic(), task.cancelled.reason
            task.raise_if_cancelled()


# -- the handler learns that its lease is lost ------------------------------------------------


def test_a_handler_whose_lease_another_has_taken_stops_within_one_heartbeat() -> None:
    taken_at: list[float] = []

    def script(path: str, body: Any) -> Answer | None:
        if path != "/v1/heartbeats":
            return None
        if taken_at:
            return refused(body, "leases")
        taken_at.append(time.monotonic())  # just after the renewal: the longest way to the next
        return None

    with ScriptedServer(claim(lease_s=LEASE_S), script=script) as server:
        waiting = Waiting(server)
        with waiting.worker:
            until(lambda: waiting.reason, what="the handler is stopped")
    assert waiting.reason == "fenced"
    assert waiting.stopped_at - taken_at[0] < BEAT_S * 1.4 * stretch()
    assert (waiting.worker.counters.lost, waiting.worker.counters.released) == (1, 0)


async def test_a_heartbeat_is_due_at_a_third_of_a_lease_and_the_handler_stops_at_two() -> None:
    wire = Wire("http://127.0.0.1:1", None, SHORT)
    session = Session(
        owner="o", slots=1, handlers={}, wire=wire, limits=SHORT,
        counters=Counters(), notices=Notices(),
    )  # fmt: skip
    granted_at = time.monotonic()
    granted = msgspec.json.decode(msgspec.json.encode(claim(lease_s=15.0)), type=Claim)
    lease = Lease(granted, Handler("k", lambda _: None), granted_at)
    lease.begun = True
    session.leases[lease.key] = lease
    heartbeats, seen = Heartbeats(session), list[tuple[bool, str | None]]()
    for after_s in (4.9, 5.1, 9.9, 10.1):
        heartbeats.step(granted_at + after_s)  # the answer never comes
        seen.append((lease.in_flight, lease.cancellation.reason))
    await wire.close()
    assert seen == [(False, None), (True, None), (True, None), (True, "lease_lost")]


@pytest.mark.parametrize("silence", [UNAVAILABLE, (0, None)], ids=["503", "hangs up"])
def test_a_handler_without_renewals_stops_a_heartbeat_before_another_may_begin(
    silence: Answer,
) -> None:
    asked_at: list[float] = []

    def script(path: str, _: Any) -> Answer | None:
        if path == "/v1/heartbeats":
            asked_at.append(time.monotonic())
            return None if len(asked_at) == 1 else silence
        return None

    with ScriptedServer(claim(lease_s=LEASE_S), script=script) as server:
        waiting = Waiting(server)
        with waiting.worker:
            until(lambda: waiting.reason, what="the handler is stopped")
    renewed_at = asked_at[0]
    assert waiting.reason == "lease_lost"
    assert FENCE_S * 0.9 < waiting.stopped_at - renewed_at < (FENCE_S + BEAT_S / 2) * stretch()
    assert len(asked_at) > 2, "it is tried more than once before that"


# -- what is counted --------------------------------------------------------------------------


def test_a_result_is_kept_until_the_server_answers_however_long_its_lease_is_over() -> None:
    lease_s, silent_until = 0.3, 0.0

    def script(path: str, _: Any) -> Answer | None:
        return UNAVAILABLE if path == "/v1/results" and time.monotonic() < silent_until else None

    with ScriptedServer(claim(lease_s=lease_s), script=script) as server:
        worker = Worker("unit", url=server.url, limits=SHORT)

        @worker.task("k")
        def work(task: Task) -> int:  # pyright: ignore[reportUnusedFunction]
            nonlocal silent_until
            silent_until = time.monotonic() + 5 * lease_s
            return task.attempt

        with worker:
            until(lambda: worker.counters.completed or worker.counters.lost, what="it has ended")
    assert (worker.counters.completed, worker.counters.lost) == (1, 0)
    assert worker.counters.retried > 2


@pytest.mark.parametrize(
    ("stored", "completed"), [("completed", 1), ("released", 1), ("lost", 0), ("running", 0)]
)
def test_a_repeated_result_that_is_refused_counts_as_the_log_has_it(
    stored: str, completed: int
) -> None:
    """Its first try was carried out, the answer was lost, and another attempt has ended since."""
    worker: Worker | None = None

    def script(path: str, body: Any) -> Answer | None:
        if path == "/v1/results":
            return (0, None) if not server.results()[1:] else refused(body, "results")
        if path == "/v1/plans/p/tasks/t" and worker is not None:
            others = {"attempt": 2, "owner": worker.owner, "status": "completed"}
            return 200, {
                "executions": [{"attempt": 1, "owner": worker.owner, "status": stored}, others]
            }
        return None

    with ScriptedServer(claim(), script=script) as server:
        worker = Worker("unit", url=server.url, limits=SHORT)
        worker.task("k")(lambda task: task.attempt)
        with worker:
            until(lambda: worker.counters.completed or worker.counters.lost, what="it is settled")
    assert (worker.counters.completed, worker.counters.lost) == (completed, 1 - completed)


def test_a_result_that_is_refused_at_once_is_lost_and_nothing_is_asked() -> None:
    def script(path: str, body: Any) -> Answer | None:
        return refused(body, "results") if path == "/v1/results" else None

    with ScriptedServer(claim(), script=script) as server:
        worker = Worker("unit", url=server.url, limits=SHORT)
        worker.task("k")(lambda task: task.attempt)
        with worker:
            until(lambda: worker.counters.lost, what="it is settled")
    assert "/v1/plans/p/tasks/t" not in server.paths()


@pytest.mark.parametrize("heard", [True, False])
def test_at_the_end_of_a_worker_each_attempt_is_counted_once(*, heard: bool) -> None:
    """Results are not taken any more; goodbye gives one attempt back, or is not heard either."""

    def script(path: str, _: Any) -> Answer | None:
        if path == "/v1/results":
            return UNAVAILABLE
        if path.endswith("/goodbye") and heard:
            held = {"plan_id": "p0", "task_id": "t", "attempt": 1}
            return 200, {"released": [held, {**held, "plan_id": "unknown"}]}
        return UNAVAILABLE if path.endswith("/goodbye") else None

    claims = [claim(plan_id=f"p{n}", lease_s=60.0) for n in range(2)]
    with ScriptedServer(*claims, script=script) as server:
        worker = Worker("unit", slots=2, url=server.url, limits=SHORT)
        worker.task("k")(lambda task: task.attempt)
        worker.start()
        until(lambda: worker.counters.claimed == 2, what="both are claimed")
        worker.stop(0)
    said = worker.counters
    assert (said.completed, said.released, said.lost) == ((0, 1, 1) if heard else (0, 0, 2))
