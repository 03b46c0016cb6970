"""The plan that an empty log is given: counts the words of every Markdown file of the checkout.

It does real work with a real program: one count per file in parallel, a join that adds them up, a
sort, and a critic that counts once more and compares. The settings must name the program's command
lines (``executor.command``), as they do under ``make run``.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Raw

from streams.plan.events import Submitted, TaskSpec

PLAN_ID = "sample"
REPORT = str(Path(__file__).with_name("report"))
COUNT, SUM_UP = "sample-count", "sample-report"
MAX_FILES = 50
_NOT_OURS = {".git", ".venv", "node_modules", "build", "dist"}


def markdown_files(checkout: Path) -> list[Path]:
    """Every Markdown file of a checkout, sorted, at most MAX_FILES."""
    found = (
        path
        for path in sorted(checkout.rglob("*.md"))
        if not _NOT_OURS.intersection(path.relative_to(checkout).parts)
        and not any(part.startswith(".") for part in path.relative_to(checkout).parts)
    )
    return list(found)[:MAX_FILES]


def is_allowed(commands: Mapping[str, object]) -> bool:
    """Whether the settings name the command lines that the sample needs."""
    return {COUNT, SUM_UP} <= commands.keys()


def sample_plan(checkout: Path) -> Submitted:
    """The plan for the files that are there now."""
    files = markdown_files(checkout)
    counts = {f"count-{number}": path for number, path in enumerate(files, 1)}
    everything = tuple(counts)
    return Submitted(
        name="words in the Markdown files of this checkout",
        labels={"sample": "yes"},
        tasks=(
            *(_command(task_id, COUNT, {"file": str(path)}) for task_id, path in counts.items()),
            _command("total", SUM_UP, {"what": "total"}, depends_on=everything),
            _command("sorted", SUM_UP, {"what": "sorted"}, depends_on=everything),
            msgspec.structs.replace(
                _command("check", SUM_UP, {"what": "check"}, depends_on=("total", *everything)),
                type="critic",
                target="total",
            ),
        ),
    )


def _command(
    task_id: str, command: str, parameters: dict[str, str], *, depends_on: tuple[str, ...] = ()
) -> TaskSpec:
    wanted: dict[str, object] = {"command": command, "parameters": parameters}
    if depends_on:
        wanted["stdin_from"] = "dependencies"
    return TaskSpec(
        id=task_id,
        kind="command",
        input=Raw(msgspec.json.encode(wanted)),
        depends_on=depends_on,
        timeout_s=30,
    )
