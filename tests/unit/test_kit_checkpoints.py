"""Steps and checkpoints: kept ones are not run again, refused ones stop their handler."""

from typing import Any

import pytest

from holdfast_worker import (
    Task,
    Worker,
)
from tests.unit.kit_world import (
    NO_ROUTE,
    SHORT,
    Answer,
    ScriptedServer,
    claim,
    ended,
    problem,
)
from tests.waiting import until


def no_checkpoints(path: str, _: Any) -> Answer | None:
    return NO_ROUTE if path.endswith("/checkpoint") else None


def test_without_checkpoints_a_step_runs_and_is_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedServer(claim(), script=no_checkpoints) as server:
        (result,) = ended(server, lambda task: task.step("one", lambda: 5))
    assert result["output"] == 5
    assert "keeps no checkpoints" in caplog.text


def test_without_checkpoints_a_checkpoint_fails_and_names_what_is_missing() -> None:
    with ScriptedServer(claim(), script=no_checkpoints) as server:
        (result,) = ended(server, lambda task: task.checkpoint("place", 5))
    assert (result["outcome"], result["retryable"]) == ("failed", False)
    assert "keeps no checkpoints" in result["error_message"]


def test_a_kept_step_is_not_run_again_and_a_name_serves_once() -> None:
    ran: list[str] = []

    def work(task: Task) -> list[int]:
        first = task.step("one", lambda: ran.append("one") or 1)
        second = task.step("two", lambda: ran.append("two") or 2)
        with pytest.raises(ValueError, match="needs a name of its own"):
            task.step("two", lambda: 3)
        assert dict(task.checkpoints) == {"place": [4]}
        return [first, second]

    kept = {"step/one": 11, "place": [4]}
    with ScriptedServer(claim(checkpoints=kept)) as server:
        (result,) = ended(server, work)
    assert (result["output"], ran) == ([11, 2], ["two"])
    sent = [body for path, body in server.seen if path.endswith("/checkpoint")]
    assert [(each["key"], each["value"]) for each in sent] == [("step/two", 2)]


def test_a_step_whose_checkpoint_is_refused_stops_its_handler() -> None:
    def script(path: str, _: Any) -> Answer | None:
        return problem(409, "guard_reject") if path.endswith("/checkpoint") else None

    reached: list[str] = []

    def work(task: Task) -> None:
        task.step("one", lambda: 1)
        reached.append("beyond")

    with ScriptedServer(claim(), script=script) as server:
        worker = Worker("unit", url=server.url, limits=SHORT)
        worker.task("k")(work)
        with worker:
            until(lambda: worker.counters.lost, what="the lease is lost")
    assert (reached, server.results()) == ([], [])
