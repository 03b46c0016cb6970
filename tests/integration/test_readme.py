"""What the README claims: commands, settings, kinds and endpoints exist and answer as it shows."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.cli.main import parser
from service.settings.config import KEYS
from service.settings.loading import load_settings
from tests.faults.service_process import ROOT, ServiceProcess, run_holdfast, until

README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
BLOCKS = re.findall(r"^```\w*\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
CODE = [*re.findall(r"`([^`\n]+)`", README), *BLOCKS]


def test_every_make_target_it_names_exists() -> None:
    named = set(re.findall(r"\bmake ([a-z][a-z-]+)", "\n".join(CODE)))
    assert {"run", "test"} <= named
    assert named <= set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


def test_every_command_it_names_exists(capsys: pytest.CaptureFixture[str]) -> None:
    paragraph = README[README.index("The command line is") :].split("\n\n")[0]
    named = [each.split() for each in re.findall(r"`([a-z][^`]*)`", paragraph)]
    assert ["submit", "FILE", "--follow"] in named
    for command, *arguments in named:
        with pytest.raises(SystemExit) as ended:
            parser().parse_args([command, "--help"])
        assert ended.value.code == 0, command
        shown = capsys.readouterr().out
        for argument in arguments:
            assert argument.lower() in shown.lower(), (command, argument)


def test_every_setting_it_names_exists() -> None:
    for variable in re.findall(r"HOLDFAST_([A-Z_]+__[A-Z_]+)(?:=|\b)", README):
        assert variable.lower().replace("__", ".") in KEYS, variable
    sections = "|".join({key.split(".")[0] for key in KEYS if "." in key})
    for key in re.findall(rf"`(?:\w+=)?((?:{sections})\.[a-z_.]+)\b", README):
        assert key in KEYS, key
    assert load_settings(environment={"NATS_URL": "nats://h:1"}).nats.url == "nats://h:1"


def test_check_config_prints_every_setting_with_its_origin() -> None:
    code, said = run_holdfast("check-config", http__port="8080")
    assert code == 0
    assert set(KEYS) == {line.split()[0] for line in said.splitlines()}
    assert re.search(
        r"^http\.port += 8080  \(environment HOLDFAST_HTTP__PORT\)$", said, re.MULTILINE
    )


def test_every_file_it_names_exists() -> None:
    named = re.findall(r"`((?:service|streams|tests)/[\w/.]+)`|\]\((\w+\.md)\)", README)
    files = {one or other for one, other in named}
    assert files
    assert [name for name in files if not (ROOT / name).exists()] == []


# -- the examples, said to a real instance ------------------------------------------------------


class Curl:
    """One `curl` of the README: method, path, body."""

    def __init__(self, line: str) -> None:
        words = shlex.split(line.replace("\\\n", " "))
        self.method = words[words.index("-X") + 1] if "-X" in words else "GET"
        url = next(word for word in words if word.startswith("localhost:8000"))
        self.path = url.removeprefix("localhost:8000")
        headers = (words[place + 1] for place, word in enumerate(words) if word == "-H")
        self.headers = dict(header.split(": ") for header in headers)
        self.body: Any = json.loads(words[words.index("-d") + 1]) if "-d" in words else None


def curls() -> list[Curl]:
    """Every `curl` of the README, in order."""
    lines = [
        line for block in BLOCKS for line in re.split(r"^(?=curl )", block, flags=re.MULTILINE)
    ]
    return [Curl(line) for line in lines if line.startswith("curl ") and "localhost" in line]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    service = ServiceProcess(tmp_path_factory.mktemp("readme") / "data")
    try:
        yield service.start()
    finally:
        service.stop()


def test_the_examples_answer_as_shown_one_after_the_other(service: ServiceProcess) -> None:
    answered: list[tuple[str, Any]] = []
    with httpx.Client(base_url=service.url, timeout=40) as client:
        for curl in curls():
            if curl.path.endswith("/events"):
                continue  # a stream: see below
            answer = client.request(curl.method, curl.path, json=curl.body)
            assert answer.is_success, (curl.path, answer.text)
            answered.append((curl.path, answer.json()))
        told = dict(answered)
        assert told["/v1/plans"]["created"] is True
        (claim,) = told["/v1/claims"]["claims"]
        assert claim["plan_id"] == "hello"
        assert next(each for path, each in answered if path.endswith("/complete"))["status"] == (
            "accepted"
        )
        until(lambda: client.get("/v1/plans/hello").json()["finished_at"], 20, "the plan ends")
        assert client.get("/v1/plans/hello").json()["status"] == "COMPLETED"
        events = next(curl for curl in curls() if curl.path == "/v1/plans/hello/events")
        told_of = [line for line in client.get(events.path).text.splitlines() if "event: " in line]
        assert told_of[0] == "event: hello"
        assert {"event: plan.submitted", "event: task.claimed", "event: plan.finished"} <= set(
            told_of
        )
        assert client.get("/schema/openapi.json").is_success
        resumed = next(curl for curl in curls() if curl.headers.get("Last-Event-ID"))
        cursor = int(resumed.headers["Last-Event-ID"])
        with client.stream("GET", resumed.path, headers=resumed.headers) as stream:
            ids = (line for line in stream.iter_lines() if line.startswith("id: "))
            assert next(ids) == f"id: {cursor + 1}"


def test_its_commands_that_follow_events_are_understood_and_end_with_the_plan(
    service: ServiceProcess,
) -> None:
    """After the examples above, which have ended the plan."""
    start = ".venv/bin/python -m service "
    commands = [
        shlex.split(line.removeprefix(start), comments=True)
        for block in BLOCKS
        for line in block.splitlines()
        if line.startswith(start)
    ]
    assert len(commands) > 1
    for command in commands:
        assert parser().parse_args(command).command
    of_plan = next(command for command in commands if "--plan" in command)
    code, said = run_holdfast(*of_plan, "--url", service.url)
    assert code == 0, said
    assert "plan.finished" in said


def test_the_kinds_in_its_table_are_what_an_instance_runs(service: ServiceProcess) -> None:
    table = README[README.index("| kind | does | input |") :].split("\n\n")[0]
    named = sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    started = next(line for line in service.output.splitlines() if "executor_started" in line)
    assert json.loads(started)["kinds"] == named


def test_submit_follow_tells_the_plan_and_ends_with_it(
    service: ServiceProcess, tmp_path: Path
) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({"id": "followed", "tasks": [{"id": "t", "kind": "echo"}]}))
    code, said = run_holdfast("submit", str(file), "--follow", "--url", service.url)
    assert code == 0, said
    assert "plan.finished" in said
