"""How a worker claims: as much as its slots take, whatever still runs or waits to be reported."""

import threading
from typing import Any

import msgspec
import pytest

from holdfast_worker import (
    AsyncTask,
    Task,
    Worker,
)
from holdfast_worker.claiming import UNREPORTED_PER_SLOT
from tests.unit.kit_world import (
    SHORT,
    ScriptedServer,
    claim,
    granting,
)
from tests.waiting import until


async def at_once(task: AsyncTask) -> object:
    return task.input


def at_once_on_a_thread(task: Task) -> object:
    return task.input


@pytest.mark.parametrize("work", [at_once, at_once_on_a_thread])
def test_short_tasks_of_one_claim_are_followed_by_one_claim_and_one_report(work: Any) -> None:
    # No round waits for reports of earlier ones, which would make its claim smaller.
    slots, rounds = 16, UNREPORTED_PER_SLOT
    with ScriptedServer(script=granting(slots * rounds)) as server:
        patient = msgspec.structs.replace(SHORT, gather_s=60)  # for a machine without time
        worker = Worker("unit", slots=slots, url=server.url, limits=patient)
        worker.task("k")(work)
        with worker:
            until(lambda: worker.counters.completed >= slots * rounds, what="all are done")
    limits = [body["limit"] for path, body in server.seen if path == "/v1/claims"]
    assert limits[:rounds] == [slots] * rounds
    if work is at_once:
        reports = [len(body["results"]) for path, body in server.seen if path == "/v1/results"]
        assert sum(reports) == slots * rounds
        assert len(reports) <= rounds  # one that is late has the outcomes of the next round, too


def test_a_task_that_runs_holds_no_claim_back_while_slots_are_free() -> None:
    met = threading.Barrier(2)
    with ScriptedServer(claim(plan_id="p1"), claim(plan_id="p2")) as server:
        patient = msgspec.structs.replace(SHORT, gather_s=60)
        worker = Worker("unit", slots=2, url=server.url, limits=patient)
        worker.task("k")(lambda _: met.wait(30))
        with worker:
            until(lambda: worker.counters.completed == 2, what="both have met")
