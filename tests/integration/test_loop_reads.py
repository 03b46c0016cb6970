"""Reading much does not hold the API loop: long lists, histories, many kinds, event streams."""

import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.integration.stepping_world import Measured, held_each_time, plan

ATTEMPTS, BATCH = 1_000, 500
SAVES, SAVED, KEYS = 100, "x" * 60_000, 16
KINDS = 10_000
READERS = 8
LISTS = ("tasks", "plans", "executions", "audit")
OPERATIONS = ("status", "doctor", "plans", "history")


def ask_for_attempts(it: Measured) -> None:
    assert it.post("submit many", "/v1/plans", plan("many", ATTEMPTS)) == 201
    for _ in range(ATTEMPTS // BATCH):
        wish = {"owner": "w", "kinds": ["k"], "limit": BATCH, "lease_s": 300}
        claims = it.answer("claims", "/v1/claims", wish)["claims"]
        results = [
            {name: claim[name] for name in ("plan_id", "task_id", "attempt")}
            | {"outcome": "completed", "output": "x" * 100}
            for claim in claims
        ]
        it.answer("results", "/v1/results", {"owner": "w", "results": results})


def ask_for_checkpoints(it: Measured) -> None:
    tasks = [{"id": "t", "kind": "saves"}]
    assert it.post("submit saves", "/v1/plans", {"id": "saves", "tasks": tasks}) == 201
    task, held = "/v1/plans/saves/tasks/t", {"owner": "w", "attempt": 1}
    it.answer("claim saves", f"{task}/claim", {"owner": "w", "lease_s": 300})
    for n in range(SAVES):
        saved = {**held, "key": f"key-{n % KEYS}", "value": f"{n} {SAVED}"}
        it.answer("save", f"{task}/checkpoint", saved)
    for path in (task, f"{task}/why"):
        it.get("saves", path)
    it.answer("fail saves", f"{task}/fail", {**held, "error_type": "E", "retry_in_s": 0})
    again = it.answer("claim saves again", f"{task}/claim", {"owner": "w"})
    assert len(again["checkpoints"]) == KEYS
    it.answer("cancel saves", "/v1/plans/saves/cancel", {})


def ask_for_lists(it: Measured) -> None:
    kinds = [{"id": f"t{n}", "kind": f"summarise-{n}"} for n in range(KINDS)]
    assert it.post("submit kinds", "/v1/plans", {"id": "kinds", "tasks": kinds}) == 201
    for name in LISTS:
        page = it.get(f"list {name}", f"/v1/{name}?limit=200")
        if after := page["next"]:
            it.get(f"list {name}", f"/v1/{name}?limit=200&after={after}")
    for name in ("many", "saves"):
        now = it.get(f"plan {name}", f"/v1/plans/{name}")
        it.get(f"changes of {name}", f"/v1/plans/{name}/tasks")
        it.get(f"past of {name}", f"/v1/plans/{name}?at_sequence={now['sequence']}")
    for path in (*(f"/v1/ops/{name}" for name in OPERATIONS), "/v1/workers"):
        it.get(path, path)
    for path in ("/metrics", "/actuator/metrics"):
        assert it.ask(path, "GET", path) == 200


def ask_for_streams(it: Measured) -> None:
    with ThreadPoolExecutor(READERS) as readers:
        for name, wanted, least in (
            ("saves", "&types=task.checkpointed,plan.finished", SAVES * len(SAVED)),
            ("many", "", ATTEMPTS * 3 * 100),
        ):
            path = f"/v1/plans/{name}/events?after=0{wanted}"
            stream = partial(read_stream, str(it.client.base_url), path)
            read = [readers.submit(stream) for _ in range(READERS)]
            sizes = it.during(f"stream {name}", lambda read=read: [each.result() for each in read])
            assert min(sizes) > least


def read_stream(url: str, path: str) -> int:
    """How many bytes the events of a plan that has ended are."""
    parts, size, end = urlsplit(url), 0, b""
    with socket.create_connection((parts.hostname or "", parts.port or 0), 30) as connection:
        asked = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n"
        connection.sendall(asked.encode())
        while not end.endswith(b"0\r\n\r\n") and (data := connection.recv(1 << 20)):
            size, end = size + len(data), (end + data)[-5:]
    return size


@pytest.mark.timeout(240)
def test_reading_much_does_not_hold_the_loop_for_twenty_milliseconds(tmp_path: Path) -> None:
    stories = (ask_for_attempts, ask_for_checkpoints, ask_for_lists, ask_for_streams)
    assert not held_each_time(tmp_path, *stories)
