"""A stale worker can change nothing: every owner's word, over HTTP, once it no longer counts."""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.faults.log_witness import last_sequence
from tests.faults.service_process import ServiceProcess, until
from tests.scrape import scraped

Json = dict[str, Any]

LEASE_S = 0.25
LONG_LEASE_S = 600


class Api:
    """One service, and short words for what a worker says to it."""

    def __init__(self, service: ServiceProcess) -> None:
        self.service = service
        self.client = httpx.Client(base_url=service.url, timeout=20)
        self._numbers = itertools.count(1)

    def submit(self) -> str:
        """A plan with the task `t`, which only `claim` finds, and one that keeps it unfinished."""
        plan_id = f"fencing-{next(self._numbers)}"
        budget = {"max_retries": 10, "max_lost_leases": 10}
        tasks = [{"id": "t", "kind": plan_id, **budget}, {"id": "open", "kind": "nobody"}]
        self.client.post("/v1/plans", json={"id": plan_id, "tasks": tasks}).raise_for_status()
        return plan_id

    def claim(self, plan_id: str, owner: str, lease_s: float = LONG_LEASE_S) -> Json:
        """The lease of `t`, as soon as it can be had."""
        wish = {"owner": owner, "kinds": [plan_id], "lease_s": lease_s, "wait_s": 10}
        (claim,) = self.client.post("/v1/claims", json=wish).raise_for_status().json()["claims"]
        return claim

    def say(self, word: str, plan_id: str, owner: str, attempt: int, **said: Any) -> httpx.Response:
        body = {"owner": owner, "attempt": attempt, **said}
        return self.client.post(f"/v1/plans/{plan_id}/tasks/t/{word}", json=body)

    def said(self, word: str, plan_id: str, owner: str, attempt: int, **said: Any) -> Json:
        return self.say(word, plan_id, owner, attempt, **said).raise_for_status().json()

    def operate(self, word: str, plan_id: str) -> None:
        self.client.post(f"/v1/plans/{plan_id}/{word}", json={}).raise_for_status()

    def task(self, plan_id: str) -> Json:
        return self.client.get(f"/v1/plans/{plan_id}/tasks/t").raise_for_status().json()

    def plan(self, plan_id: str) -> Json:
        return self.client.get(f"/v1/plans/{plan_id}").raise_for_status().json()

    def metric(self, name: str) -> float:
        return scraped(str(self.client.base_url)).sum(name)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    service = ServiceProcess(tmp_path_factory.mktemp("fencing") / "data", roles="api,daemons")
    try:
        api = Api(service.start())
        with api.client:
            yield api
    finally:
        service.stop()


# -- how words become stale; each answers (plan, owner, attempt that speaks, what `current` is) --

Stale = tuple[str, str, int, Json]
RUNNING = "RUNNING"


def wrong_owner(api: Api) -> Stale:
    plan_id = api.submit()
    api.claim(plan_id, "holder")
    return plan_id, "thief", 1, {"status": RUNNING, "owner": "holder", "attempt": 1}


def old_attempt(api: Api) -> Stale:
    plan_id = api.submit()
    api.claim(plan_id, "w")
    api.said("fail", plan_id, "w", 1, error_type="first", retry_in_s=0)
    assert api.claim(plan_id, "w")["attempt"] == 2
    return plan_id, "w", 1, {"status": RUNNING, "owner": "w", "attempt": 2}


def attempt_to_come(api: Api) -> Stale:
    plan_id = api.submit()
    api.claim(plan_id, "w")
    return plan_id, "w", 2, {"status": RUNNING, "owner": "w", "attempt": 1}


def never_claimed(api: Api) -> Stale:
    return api.submit(), "w", 1, {"status": "READY", "owner": None, "attempt": 0}


def after_reclaim(api: Api) -> Stale:
    plan_id = api.submit()
    api.claim(plan_id, "sleeper", LEASE_S)
    api.said("start", plan_id, "sleeper", 1)
    assert api.claim(plan_id, "next")["attempt"] == 2
    return plan_id, "sleeper", 1, {"status": RUNNING, "owner": "next", "attempt": 2}


def after_reclaim_by_itself(api: Api) -> Stale:
    plan_id = api.submit()
    api.claim(plan_id, "sleeper", LEASE_S)
    assert api.claim(plan_id, "sleeper")["attempt"] == 2
    return plan_id, "sleeper", 1, {"status": RUNNING, "owner": "sleeper", "attempt": 2}


def after_completion(api: Api) -> Stale:
    plan_id = api.submit()
    api.claim(plan_id, "w")
    api.said("complete", plan_id, "w", 1, output="the first word")
    return plan_id, "w", 1, {"status": "COMPLETED", "owner": None, "attempt": 1}


def after_failure(api: Api) -> Stale:
    plan_id = api.submit()
    api.claim(plan_id, "w")
    api.said("fail", plan_id, "w", 1, error_type="first", retry_in_s=3600)
    return plan_id, "w", 1, {"status": "REFINING", "owner": None, "attempt": 1}


def after_release(api: Api) -> Stale:
    plan_id = api.submit()
    api.claim(plan_id, "w")
    api.said("release", plan_id, "w", 1, reason="the first word")
    return plan_id, "w", 1, {"status": "READY", "owner": None, "attempt": 1}


def after_cancel(api: Api) -> Stale:
    plan_id = api.submit()
    api.claim(plan_id, "w")
    api.operate("cancel", plan_id)
    until(lambda: api.plan(plan_id)["finished_at"], 10, "the cancelled plan is closed")
    return plan_id, "w", 1, {"status": "CANCELLED", "owner": None, "attempt": 1}


SITUATIONS = (
    wrong_owner, old_attempt, attempt_to_come, never_claimed, after_reclaim,
    after_reclaim_by_itself, after_completion, after_failure, after_release, after_cancel,
)  # fmt: skip

SINGLE: dict[str, Json] = {
    "start": {},
    "heartbeat": {},
    "heartbeat with progress": {"progress": {"done": 1}},
    "progress": {"data": {"done": 1}},
    "complete": {"output": "too late"},
    "fail": {"error_type": "too_late"},
    "fail for good": {"error_type": "too_late", "retryable": False},
    "release": {"reason": "too late"},
}
BATCHED: dict[str, Json] = {
    "completed": {"output": "too late"},
    "failed": {"error_type": "too_late"},
    "released": {"reason": "too late"},
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_stale_command_is_refused_and_leaves_no_trace(
    api: Api, situation: Callable[[Api], Stale]
) -> None:
    plan_id, owner, attempt, current = situation(api)
    task, head = api.task(plan_id), last_sequence(api.service.nats_url)
    for said, body in SINGLE.items():
        answer = api.say(said.split()[0], plan_id, owner, attempt, **body)
        assert answer.status_code == httpx.codes.CONFLICT, (said, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert (problem["code"], problem["current"]) == ("guard_reject", current), said
    assert api.task(plan_id) == task
    assert last_sequence(api.service.nats_url) == head


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_stale_command_among_many_is_refused_and_leaves_no_trace(
    api: Api, situation: Callable[[Api], Stale]
) -> None:
    plan_id, owner, attempt, current = situation(api)
    task, head = api.task(plan_id), last_sequence(api.service.nats_url)
    name = {"plan_id": plan_id, "task_id": "t", "attempt": attempt}
    results = [name | {"outcome": outcome} | body for outcome, body in BATCHED.items()]
    asked = {
        "/v1/results": {"owner": owner, "results": results},
        "/v1/heartbeats": {"owner": owner, "leases": [name, name | {"progress": 1}]},
    }
    for path, body in asked.items():
        items = api.client.post(path, json=body).raise_for_status().json()["results"]
        wanted = [("guard_reject", current)] * len(items)
        assert [(item["status"], item["current"]) for item in items] == wanted, path
    assert api.task(plan_id) == task
    assert last_sequence(api.service.nats_url) == head


def test_of_many_commands_only_the_stale_ones_are_refused(api: Api) -> None:
    stale, fresh = after_reclaim(api)[0], api.submit()
    assert api.claim(fresh, "sleeper")["attempt"] == 1
    head = last_sequence(api.service.nats_url)
    results = [
        {"plan_id": plan_id, "task_id": task_id, "attempt": 1, "outcome": "completed"}
        for plan_id, task_id in ((stale, "t"), (fresh, "t"), ("no-plan", "t"), (fresh, "no-task"))
    ]
    answer = api.client.post("/v1/results", json={"owner": "sleeper", "results": results})
    statuses = [item["status"] for item in answer.raise_for_status().json()["results"]]
    assert statuses == ["guard_reject", "accepted", "not_found", "not_found"]
    assert last_sequence(api.service.nats_url) == head + 1


def test_a_worker_that_sleeps_through_its_lease_changes_nothing_and_the_next_one_finishes(
    api: Api,
) -> None:
    plan_id, sleeper, attempt, _ = after_reclaim(api)
    refused = api.metric("agent_task_claimed_update_guard_reject_total")
    unrenewed = api.metric("agent_task_heartbeat_guard_reject_total")
    for word in ("heartbeat", "complete"):
        assert api.say(word, plan_id, sleeper, attempt).status_code == httpx.codes.CONFLICT
    api.said("complete", plan_id, "next", 2, output="mine")
    assert api.say("complete", plan_id, sleeper, attempt).status_code == httpx.codes.CONFLICT
    task = api.task(plan_id)
    assert (task["status"], task["output"], task["lost"]) == ("COMPLETED", "mine", 1)
    owners = [(each["owner"], each["status"]) for each in task["executions"]]
    assert owners == [(sleeper, "lost"), ("next", "completed")]
    assert api.metric("agent_task_claimed_update_guard_reject_total") == refused + 2
    assert api.metric("agent_task_heartbeat_guard_reject_total") == unrenewed + 1


def test_an_expired_lease_that_was_not_taken_over_still_counts(api: Api) -> None:
    plan_id = api.submit()
    claim = api.claim(plan_id, "late", LEASE_S)
    until(lambda: api.metric("agent_task_expired_running_current") >= 1, 10, "the lease expired")
    renewed = api.said("heartbeat", plan_id, "late", 1)
    assert renewed["lease_until"] > claim["lease_until"]
    assert api.said("complete", plan_id, "late", 1)["status"] == "accepted"


REPEATED = {
    "complete": {"output": {"a": 1, "b": [2]}},
    "fail": {"error_type": "once", "retry_in_s": 3600},
    "release": {"reason": "once"},
}


@pytest.mark.parametrize("word", REPEATED)
def test_the_same_result_twice_is_a_duplicate_and_one_fact(api: Api, word: str) -> None:
    plan_id = api.submit()
    api.claim(plan_id, "w")
    first = api.said(word, plan_id, "w", 1, **REPEATED[word])
    head = last_sequence(api.service.nats_url)
    again = api.said(word, plan_id, "w", 1, **REPEATED[word])
    assert (first["status"], again["status"]) == ("accepted", "duplicate")
    assert again["sequence"] == first["sequence"] == head
    outcome = {"complete": "completed", "fail": "failed", "release": "released"}[word]
    item = {"plan_id": plan_id, "task_id": "t", "attempt": 1, "outcome": outcome, **REPEATED[word]}
    answer = api.client.post("/v1/results", json={"owner": "w", "results": [item, item]})
    assert [each["status"] for each in answer.json()["results"]] == ["duplicate", "duplicate"]
    assert last_sequence(api.service.nats_url) == head


def test_the_same_completion_from_many_mouths_at_once_is_accepted_once(api: Api) -> None:
    plan_id = api.submit()
    api.claim(plan_id, "w")
    head = last_sequence(api.service.nats_url)
    with ThreadPoolExecutor(8) as mouths:
        saying = [mouths.submit(api.said, "complete", plan_id, "w", 1) for _ in range(8)]
        said = sorted(each.result()["status"] for each in saying)
    assert said == ["accepted"] + ["duplicate"] * 7
    assert last_sequence(api.service.nats_url) == head + 1
