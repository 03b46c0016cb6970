"""What the documents claim: commands, settings, files, kinds and endpoints are as they say."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import httpx
import pytest

from docs.generate import pages
from service.cli.main import holdfast
from service.settings.keys import KEYS
from service.settings.loading import load_settings
from tests.faults.service_process import ROOT, ServiceProcess, run_holdfast, until

README = ROOT / "README.md"
PAGES = [
    README,
    *sorted((ROOT / "docs").rglob("*.md")),
    *(
        ROOT / name
        for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md")
    ),
]
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
EVERYTHING = "\n".join(TEXTS.values())
GUIDES = "\n".join(TEXTS[page] for page in PAGES if page == README or page.parent.name == "howto")
MAKEFILE = (ROOT / "Makefile").read_text()
BLOCKS = re.findall(r"^```\w*\n(.*?)^```", GUIDES, re.MULTILINE | re.DOTALL)
COMMAND = r"(?:\.venv/bin/)?holdfast "


def test_every_make_target_they_name_exists() -> None:
    named = set(re.findall(r"`make ([a-z][a-z-]+)|^make ([a-z][a-z-]+)", EVERYTHING, re.MULTILINE))
    targets = {one or other for one, other in named}
    assert {"run", "test"} <= targets
    assert targets <= set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


def test_every_command_they_name_is_understood() -> None:
    lines = re.findall(rf"^{COMMAND}(.*)$", GUIDES, re.MULTILINE)
    lines += re.findall(rf"`{COMMAND}([^`]*)`", EVERYTHING)
    assert len(lines) > 5
    for line in lines:
        _parse(shlex.split(line, comments=True))


def _parse(arguments: list[str]) -> None:
    """Raises click.UsageError for a command that is not understood."""
    context = holdfast.make_context("holdfast", list(arguments))
    name, found, rest = holdfast.resolve_command(context, arguments)
    while isinstance(found, click.Group):
        context = found.make_context(name, list(rest), parent=context)
        name, found, rest = found.resolve_command(context, rest)
    assert found is not None
    found.make_context(name, list(rest), parent=context)


def test_every_setting_they_name_exists() -> None:
    for variable in re.findall(r"HOLDFAST_([A-Z_]+__[A-Z_]+)(?:=|\b)", EVERYTHING):
        assert variable.lower().replace("__", ".") in KEYS, variable
    sections = "|".join({key.split(".")[0] for key in KEYS if "." in key})
    for key in re.findall(rf"`(?:\w+=)?((?:{sections})\.[a-z_.]+)\b", EVERYTHING):
        assert key.rstrip(".") in KEYS, key  # `secrets.NAME.env` is found as `secrets.`
    assert load_settings(environment={"NATS_URL": "nats://h:1"}).nats.url == "nats://h:1"


def test_check_config_prints_every_setting_with_its_origin() -> None:
    code, said = run_holdfast("check-config", http__port="8080")
    assert code == 0
    assert set(KEYS) == {line.removeprefix("# ").split()[0] for line in said.splitlines()}
    assert re.search(r"^http\.port += 8080  # environment HOLDFAST_HTTP__PORT$", said, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_and_file_of_a_page_exists(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", TEXTS[page])
    files = re.findall(r"`((?:service|streams|projections|tests|docs)/[\w/.]+)`", TEXTS[page])
    missing = [link for link in links if not (page.parent / link).exists()]
    assert missing + [file for file in files if not (ROOT / file).exists()] == []


@pytest.mark.parametrize(("path", "text"), list(pages()), ids=[path.stem for path, _ in pages()])
def test_a_reference_page_is_what_the_code_says(path: Path, text: str) -> None:
    assert path.read_text(encoding="utf-8") == text, "run `make docs`"


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
    lines = re.findall(rf"^{COMMAND}(.*)$", GUIDES, re.MULTILINE)
    commands = [shlex.split(line, comments=True) for line in lines]
    of_plan = next(command for command in commands if "--plan" in command)
    code, said = run_holdfast(*of_plan, "--url", service.url)
    assert code == 0, said
    assert "plan.finished" in said


def test_the_kinds_in_its_table_are_what_an_instance_runs(service: ServiceProcess) -> None:
    table = GUIDES[GUIDES.index("| kind | does | input |") :].split("\n\n")[0]
    named = sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    # It serves before the line about it has been read.
    serving = until(lambda: [line for line in service.output.splitlines() if '"serving"' in line])
    assert json.loads(serving[0])["kinds"] == named


def test_submit_follow_tells_the_plan_and_ends_with_it(
    service: ServiceProcess, tmp_path: Path
) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({"id": "followed", "tasks": [{"id": "t", "kind": "echo"}]}))
    code, said = run_holdfast("submit", str(file), "--follow", "--url", service.url)
    assert code == 0, said
    assert "plan.finished" in said
