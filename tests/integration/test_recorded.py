"""Requests recorded before the HTTP layer was rewritten are answered as they were then.

A line of a recording that was changed since names the issue that asks for it. Fields may be added
to an answer, none may vanish or change; ``ADDED`` names those that came later, with their issue.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.recorded.scenes import SCENES, lines_of, play

ADDED: dict[str, str] = {
    **dict.fromkeys(
        (
            "join",
            "quorum",
            "on_failure",
            "max_retries",
            "max_lost_leases",
            "timeout_s",
            "lease_s",
            "target",
        ),
        "issue 8, item 11: a client can show what a task was submitted with",
    ),
    "checkpoints": "issue 11, item 3: what earlier attempts kept",
    "started": "issue 11: a claim may start its attempts",
    "truncated": "issue 8, item 14: large fields are left out of lists and plan details",
    "executions_total": "issue 8, item 25: a task shows its last 20 attempts and a count",
}
SHOWN = 5


@pytest.mark.timeout(120)
@pytest.mark.parametrize("scene", SCENES)
async def test_recorded_requests_are_answered_as_recorded(scene: str, tmp_path: Path) -> None:
    differing = []
    async for line, answer in play(scene, tmp_path):
        if found := list(_differences(line["answer"], answer, "answer")):
            asked = json.dumps({key: line[key] for key in line if key != "answer"})
            differing.append("\n  ".join([asked[:500], *found[:SHOWN]]))
    assert not differing, f"{len(differing)} differ:\n" + "\n".join(differing)


def test_the_recordings_hold_every_route_and_enough_requests() -> None:
    lines = [line for scene in SCENES for line in lines_of(scene)]
    assert len(lines) >= 150
    codes = {line["answer"]["body"].get("code") for line in lines if _is_problem(line["answer"])}
    assert codes >= {
        "invalid_request", "unauthorized", "forbidden", "not_found", "method_not_allowed",
        "guard_reject", "plan_exists", "not_allowed", "too_large", "internal_error", "contended",
        "log_unavailable", "database_unavailable", "behind", "log_full",
    }  # fmt: skip


def _is_problem(answer: dict[str, object]) -> bool:
    return isinstance(answer["body"], dict) and "code" in answer["body"]


def _differences(then: object, now: object, place: str) -> Iterator[str]:
    """What differs between two answers, one line for each."""
    if isinstance(then, dict) and isinstance(now, dict):
        if {"code", "detail", "title"} <= then.keys() & now.keys():
            then, now = _without_wording(then), _without_wording(now)
        # What a check of readiness says changes with the moment.
        momentary = {"detail"} if {"name", "ok", "detail"} <= then.keys() else set[str]()
        for name in (then.keys() | now.keys() - ADDED.keys()) - momentary:
            yield from _differences(then.get(name), now.get(name), f"{place}.{name}")
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for n, (before, after) in enumerate(zip(then, now, strict=True)):
            yield from _differences(before, after, f"{place}[{n}]")
    elif then != now:
        yield f"{place}: recorded {_short(then)}, now {_short(now)}"


def _without_wording(problem: dict[str, str]) -> dict[str, str]:
    """A problem's sentences may be said better; the place that it names first is a promise."""
    place = problem["detail"].partition(":")[0] if problem["code"] == "invalid_request" else ""
    return {key: problem[key] for key in problem if key not in {"detail", "title"}} | {
        "place": place
    }


def _short(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)[:300]
