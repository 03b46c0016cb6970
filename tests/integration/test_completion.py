"""TAB in real shells: commands, flags, files, and the plans and tasks of a running instance."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults.service_process import environment
from tests.integration.http_world import serving
from tests.programs import program

# Each prints what is offered for its arguments, the last of which is not complete.
ASK = {
    "bash": """
eval "$SET_UP"
compopt() { echo "the shell's own: $2"; }
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
_holdfast_completion holdfast
printf '%s\\n' "${COMPREPLY[@]}"
""",
    "zsh": """
compdef() { }
_describe() { print -l -- ${completions_with_descriptions%%:*} }
compadd() { print -l -- $completions }
_path_files() { print "the shell's own: ${${1/-f/default}/-\\//dirnames}" }
eval "$SET_UP"
words=("$@") CURRENT=$#
_holdfast_completion
""",
    "fish": """
function __fish_complete_path; echo "the shell's own: default"; end
function __fish_complete_directories; echo "the shell's own: dirnames"; end
printf '%s' "$SET_UP" | source
complete -C "$argv" | string replace -r '\\t.*' ''
""",
}
FLAGS = {"bash": ("--norc", "-c"), "zsh": ("-f", "-c"), "fish": ("--no-config", "-c")}
IDS = {
    ("pause", ""): {"alpha", "beta"},
    ("why", "al"): {"alpha"},
    ("why", "alpha/f"): {"alpha/fetch"},
    ("events", "--plan", "b"): {"beta"},
}
NAMES = {"bash": ("bash",), "zsh": ("zsh",), "fish": ()}  # what $0 is


@pytest_asyncio.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    async with serving(tmp_path / "service") as (_, client):
        for plan_id in ("alpha", "beta"):
            tasks = [{"id": name, "kind": "outside"} for name in ("fetch", "render")]
            body = {"id": plan_id, "tasks": tasks}
            assert (await client.post("/v1/plans", json=body)).status_code == 201
        yield str(client.base_url)


class Shell:
    """A shell with the command line `holdfast` in its path, set up once as the manual says."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        command = folder / "holdfast"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m service "$@"\n')
        command.chmod(0o755)
        self._variables = environment() | {"HOME": str(folder)}
        self._variables["PATH"] = os.pathsep.join([str(folder), os.environ["PATH"]])
        self._variables["SET_UP"] = self._said([str(command)], _HOLDFAST_COMPLETE=f"{name}_source")

    def offered(self, url: str, *words: str) -> list[str]:
        """What it offers for the last of the words of a `holdfast` line."""
        name = self._name
        line = [program(name), *FLAGS[name], ASK[name], *NAMES[name], "holdfast", *words]
        return self._said(line, HOLDFAST_URL=url).split("\n")[:-1]

    def _said(self, line: list[str], **variables: str) -> str:
        done = subprocess.run(
            line,
            env=self._variables | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stderr == "", done.stderr
        return done.stdout


@pytest.mark.timeout(300)
@pytest.mark.parametrize("shell", list(ASK))
async def test_a_shell_offers_what_fits(shell: str, tmp_path: Path, url: str) -> None:
    if shell != "bash" and shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")

    made = await asyncio.to_thread(Shell, shell, tmp_path)

    async def asked(*words: str, at: str = url) -> set[str]:
        return set(await asyncio.to_thread(made.offered, at, *words))

    assert await asked("s") == {"serve", "submit", "show"}
    assert {"--at", "--json", "--url"} <= await asked("show", "--")
    for words, ids in IDS.items():
        async with asyncio.timeout(60):  # on a busy machine the instance may not answer
            while (found := await asked(*words)) != ids:
                assert found <= {""}, words
    assert "the shell's own: default" in await asked("submit", "")
    assert "the shell's own: dirnames" in await asked("backup", "")
    nothing = await asked("pause", "a", at="http://127.0.0.1:1")
    assert nothing <= {""}, "an instance that cannot be asked offers nothing and says nothing"


async def test_the_command_of_a_checkout_is_found_from_any_folder(tmp_path: Path) -> None:
    launcher = Path(sys.prefix) / "bin" / "holdfast"
    if not launcher.exists():
        pytest.skip("this environment was not made by make")
    (tmp_path / "holdfast").symlink_to(launcher)
    said = await asyncio.to_thread(
        subprocess.run,
        [tmp_path / "holdfast", "--version"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith("holdfast, version")
