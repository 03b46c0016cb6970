"""Something between worker and server refuses one content for ever: nothing else waits for it."""

import json
import threading
from collections import Counter
from typing import Any

from holdfast_worker import Task, Worker
from tests.unit.kit_world import SHORT, Answer, Script, ScriptedServer, claim
from tests.waiting import until

TASKS = 5
BAD = 1
LEASE_S = 6.0
RENEWALS = 4  # more than a lease: one comes each third of it


class Proxy:
    """Answers 502 to each request that holds ``word``, until it lets all pass."""

    def __init__(self, word: str) -> None:
        self.lets_all_pass = False
        self._word = word

    def __call__(self, _: str, body: Any) -> Answer | None:
        refuses = not self.lets_all_pass and self._word in json.dumps(body)
        return (502, "refused by a rule") if refuses else None


def claims(**fields: Any) -> list[dict[str, Any]]:
    return [claim(task_id=f"t{number}", input=number, **fields) for number in range(TASKS)]


def worker_of(server: ScriptedServer) -> Worker:
    return Worker("unit", slots=TASKS, url=server.url, limits=SHORT)


def test_a_result_that_is_refused_for_ever_holds_no_other_back() -> None:
    proxy = Proxy("forbidden")
    with ScriptedServer(*claims(lease_s=600.0), script=proxy) as server:
        worker, together = worker_of(server), threading.Barrier(TASKS)

        @worker.task("k")
        def work(task: Task) -> str:  # pyright: ignore[reportUnusedFunction]
            together.wait(20)
            return "forbidden" if task.input == BAD else "good"

        with worker:
            until(lambda: worker.counters.completed == TASKS - 1, what="the others are reported")
            tries = len(server.results())
            until(lambda: len(server.results()) > tries, what="the one is tried again, alone")
            proxy.lets_all_pass = True
            until(lambda: worker.counters.completed == TASKS, what="it is reported as well")
    assert worker.counters.lost == 0
    assert server.results()[-1]["output"] == "forbidden"


def test_a_result_that_went_with_others_before_may_have_been_carried_out() -> None:
    """The proxy let the first request pass, and kept its answer."""
    worker: Worker | None = None
    tried: set[str] = set()
    refused = {"status": "guard_reject", "current": {"status": "RUNNING", "owner": "o"}}

    def script(path: str, body: Any) -> Answer | None:
        if path == "/v1/results":
            sent = {result["task_id"] for result in body["results"]}
            if len(sent) > 1 or not sent <= tried:
                tried.update(sent)
                return 502, "the answer is lost"
            return 200, {"results": [refused]}
        if path.startswith("/v1/plans/p/tasks/") and worker is not None:
            ended = {"attempt": 1, "owner": worker.owner, "status": "completed"}
            return 200, {"executions": [ended]}
        return None

    with ScriptedServer(*claims(lease_s=600.0), script=script) as server:
        worker, together = worker_of(server), threading.Barrier(TASKS)
        worker.task("k")(lambda _: together.wait(20))
        with worker:
            until(lambda: worker.counters.completed == TASKS, what="all count as completed")
    assert worker.counters.lost == 0


def showing(word: str, over: threading.Event) -> Any:
    def work(task: Task) -> str:
        task.progress(word if task.input == BAD else "fine")
        while not over.is_set() and not task.cancelled.wait(0.05):
            pass
        task.raise_if_cancelled()
        return "done"

    return work


def test_progress_that_is_refused_for_ever_costs_no_lease() -> None:
    over, proxy = threading.Event(), Proxy("forbidden")
    with ScriptedServer(*claims(lease_s=LEASE_S), script=proxy) as server:
        worker = worker_of(server)
        worker.task("k")(showing("forbidden", over))
        with worker:
            until(
                lambda: min(_renewals(server, proxy)) >= RENEWALS,
                what="each lease is renewed again and again",
            )
            assert worker.counters.lost == 0
            over.set()
            until(lambda: worker.counters.completed == TASKS, what="all are reported")
    assert worker.counters.lost == worker.counters.failed == 0


def test_the_last_progress_of_others_is_shown_before_their_results() -> None:
    over, proxy = threading.Event(), Proxy("forbidden")
    over.set()
    with ScriptedServer(*claims(lease_s=600.0), script=proxy) as server:
        worker = worker_of(server)
        worker.task("k")(showing("forbidden", over))
        with worker:
            until(lambda: worker.counters.completed == TASKS, what="all are reported")
    shown = {item["task_id"] for item in _passed(server, proxy) if "progress" in item}
    assert shown == {f"t{number}" for number in range(TASKS)} - {f"t{BAD}"}


def _renewals(server: ScriptedServer, proxy: Script) -> list[int]:
    renewed = Counter(item["task_id"] for item in _passed(server, proxy))
    return [renewed[f"t{number}"] for number in range(TASKS)]


def _passed(server: ScriptedServer, proxy: Script) -> list[dict[str, Any]]:
    beats = [body for path, body in server.seen if path == "/v1/heartbeats"]
    return [item for body in beats if proxy("", body) is None for item in body["leases"]]
