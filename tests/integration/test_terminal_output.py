"""No command shows a plan whose texts try to steer the terminal so that they succeed."""

import asyncio
import re
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from service.cli.main import holdfast
from tests.integration.http_world import serving, until_status
from tests.unit.test_terminal import EVIL, ISOLATE, RIGHT_TO_LEFT, TAG, is_harmless

COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # what rich writes itself, on a terminal only
FOLLOWING = [("events", "--plan", "p"), ("events", "--plan", "p", "--json")]  # end with the plan
COMMANDS = [
    ("plans",),
    ("show", "p"),
    ("show", "p/bad"),
    ("why", "p"),
    ("why", "p/waits"),
    ("workers",),
    ("audit",),
    ("doctor",),
    ("plans", "--json"),
    ("show", "p", "--json"),
    ("audit", "--json"),
]


async def evil_plan(client: httpx.AsyncClient) -> None:
    """A failed attempt, a stale report and a waiting task, with `EVIL` wherever text is free."""
    plan = {
        "id": "p",
        "name": EVIL,
        "labels": {f"k{RIGHT_TO_LEFT}": f"{ISOLATE}{TAG}"},
        "context": EVIL,
        "tasks": [
            {
                "id": "bad",
                "kind": "evil",
                "input": {"x": EVIL},
                "max_retries": 0,
                "on_failure": "continue",
            },
            {"id": "waits", "kind": "evil", "depends_on": ["bad"]},
        ],
    }
    answers = [await client.post("/v1/plans", json=plan)]
    wanted = {"owner": "w", "kinds": ["evil"], "lease_s": 30}
    answers.append(await client.post("/v1/claims", json=wanted))
    attempt = {"owner": "w", "attempt": 1}
    failed = {"error_type": "internal", "error_message": EVIL}
    path = "/v1/plans/p/tasks/bad"
    answers.append(await client.post(f"{path}/fail", json=attempt | failed))
    stale = await client.post(f"{path}/complete", json=attempt | {"owner": "late", "output": EVIL})
    answers.append(await client.post("/v1/plans/p/pause", json={"reason": EVIL}))
    assert [answer.status_code for answer in answers] == [201, 200, 200, 200], [
        answer.text for answer in answers
    ]
    assert stale.status_code == 409
    await until_status(client, path, "FAILED")


def shown(url: str, *command: str) -> str:
    """What a command prints; a command that is asked wrongly ends with 2."""
    done = CliRunner().invoke(holdfast, [*command, "--url", url])
    assert done.exit_code in (0, 1), (command, done.output)
    return done.output


@pytest.mark.timeout(120)
@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
async def test_no_command_lets_a_plan_steer_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, terminal: bool
) -> None:
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    async with serving(tmp_path, observability__audit_success_log_enabled=True) as (_, client):
        await evil_plan(client)
        url, said = str(client.base_url), {}
        for command in COMMANDS:
            said[command] = await asyncio.to_thread(shown, url, *command)
        await client.post("/v1/plans/p/cancel", json={"reason": EVIL})
        for command in FOLLOWING:
            said[command] = await asyncio.to_thread(shown, url, *command)
    for command, text in said.items():
        assert is_harmless(COLOURS.sub("", text) if terminal else text), (command, text)
    assert "x1b" in said[("plans",)], "the test sees what it is about"
    assert "x1b" in said["show", "p/bad"]
    assert "u001b" in said["events", "--plan", "p", "--json"]
