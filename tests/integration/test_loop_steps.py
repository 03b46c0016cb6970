"""Nothing that arrives holds the API loop: an instance under the largest asks, step by step."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.integration.stepping_world import Measured, held_each_time, plan

TASKS = 10_000
WRITERS, SAVES, SAVED, KEYS = 10, 100, "x" * 60_000, 16
MEBIBYTE = 1024 * 1024 - 300
SHAPES = ("[]", '{"a":1}', "1", '""', r'"\u00e9"', "1.5e3", "1.2345678901234567890123e-300", "[[]]")


def chain(count: int) -> dict[str, Any]:
    links = [{"id": f"t{n}", "kind": "k", "depends_on": [f"t{n - 1}"]} for n in range(1, count)]
    return {"id": "chain", "tasks": [{"id": "t0", "kind": "k"}, *links]}


def matrix(roots: int, leaves: int) -> dict[str, Any]:
    names = [f"t{n}" for n in range(roots)]
    tasks = [{"id": name, "kind": "k"} for name in names]
    ends = [{"id": f"u{n}", "kind": "k", "depends_on": names} for n in range(leaves)]
    return {"id": "matrix", "tasks": tasks + ends}


def of_a_mebibyte(part: str) -> bytes:
    return f"[{','.join([part] * (MEBIBYTE // (len(part) + 1)))}]".encode()


def ask_about_large_plans(it: Measured) -> None:
    wide, fan = plan("wide", TASKS), plan("fan", TASKS, ("t0",))
    for each in (wide, fan, chain(TASKS), matrix(900, 130)):
        name = each["id"]
        assert it.post(f"submit {name}", "/v1/plans", each) == 201
        assert it.post(f"repeat {name}", "/v1/plans", each) == 200
    claim = {"owner": "w"}
    for name in ("fan", "chain"):
        task = f"/v1/plans/{name}/tasks/t0"
        assert it.post(f"claim {name}", f"{task}/claim", claim) == 200
        failed = {"owner": "w", "attempt": 1, "error_type": "E", "retryable": False}
        assert it.post(f"fail {name}", f"{task}/fail", failed) == 200
        assert it.ask(f"why {name}", "GET", f"/v1/plans/{name}/why") == 200
        assert it.post(f"retry {name}", f"/v1/plans/{name}/retry", {}) == 200
        assert it.post(f"claim {name} again", f"{task}/claim", claim) == 200
        done = {"owner": "w", "attempt": 2, "output": 1}
        assert it.post(f"complete {name}", f"{task}/complete", done) == 200
    for path in ("wide", "wide?at_sequence=1", "wide/tasks", "wide/tasks/t77/why"):
        assert it.ask(path, "GET", f"/v1/plans/{path}") == 200
    assert it.post("claims", "/v1/claims", {"owner": "v", "limit": 500, "kinds": ["k"]}) == 200
    for action in ("pause", "resume", "cancel"):
        for name in ("wide", "fan", "chain", "matrix"):
            assert it.post(f"{action} {name}", f"/v1/plans/{name}/{action}", {}) == 200


def ask_with_large_bodies(it: Measured) -> None:
    tasks = [{"id": f"t{n}", "kind": "large"} for n in range(len(SHAPES))]
    assert it.post("submit large", "/v1/plans", {"id": "large", "tasks": tasks}) == 201
    for n, part in enumerate(SHAPES):
        value = of_a_mebibyte(part)
        body = b'{"context":%b,"tasks":[{"id":"t","kind":"k"}]}' % value
        status = it.ask(f"context of {part}", "POST", "/v1/plans", body)
        task = f"/v1/plans/large/tasks/t{n}"
        assert it.post("claim", f"{task}/claim", {"owner": "w"}) == 200
        ends = [b'{"owner":"w","attempt":1,"output":%b%b}' % (gap, value) for gap in (b"", b" ")]
        for body in ends:
            ended = it.ask(f"output of {part}", "POST", f"{task}/complete", body)
            assert (status, ended) in ((201, 200), (400, 400))
    twice = of_a_mebibyte('{"a":1,"a":2}')
    assert it.ask("keys that stand twice", "POST", "/v1/plans", twice) == 400
    deep = b"[" * (MEBIBYTE // 2) + b"]" * (MEBIBYTE // 2)
    assert it.ask("depth", "POST", "/v1/plans", deep) == 400


def save_side_by_side(it: Measured) -> None:
    """A thousand checkpoints of 60 kB, by ten attempts at the same time."""
    saving = {"id": "saves", "tasks": [{"id": f"t{n}", "kind": "saves"} for n in range(WRITERS)]}
    assert it.post("submit saves", "/v1/plans", saving) == 201
    wish = {"owner": "w", "kinds": ["saves"], "limit": WRITERS, "lease_s": 120}
    assert it.post("claim saves", "/v1/claims", wish) == 200
    held = {"owner": "w", "attempt": 1}

    def save(task: int) -> None:
        for n in range(SAVES):
            saved = {**held, "key": f"k{n % KEYS}", "value": [n, SAVED]}
            path = f"/v1/plans/saves/tasks/t{task}/checkpoint"
            it.client.post(path, json=saved).raise_for_status()

    with ThreadPoolExecutor(WRITERS) as writers:
        it.during("saves", lambda: list(writers.map(save, range(WRITERS))))


@pytest.mark.timeout(240)
def test_no_request_holds_the_loop_for_twenty_milliseconds(tmp_path: Path) -> None:
    stories = (ask_about_large_plans, ask_with_large_bodies, save_side_by_side)
    assert not held_each_time(tmp_path, *stories)
