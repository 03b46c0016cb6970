"""The plan that an empty log is given: counts the words of every Markdown file of the checkout.

It does real work with real programs: one ``wc`` per file in parallel, a join that adds them up, a
sort, and a critic that counts once more and compares. The programs must be on the allow-list
(``executor.command.allow``), as they are under ``make run``.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Raw

from streams.plan.events import Submitted, TaskSpec

PLAN_ID = "sample"
REPORT = str(Path(__file__).with_name("report"))
PROGRAMS = ("wc", REPORT)
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


def is_allowed(allowed: Iterable[str]) -> bool:
    """Whether the command handler may start what the sample needs."""
    return set(PROGRAMS) <= set(allowed)


def sample_plan(checkout: Path) -> Submitted:
    """The plan for the files that are there now."""
    files = markdown_files(checkout)
    counts = {f"count-{number}": path for number, path in enumerate(files, 1)}
    everything = tuple(counts)
    return Submitted(
        name="words in the Markdown files of this checkout",
        labels={"sample": "yes"},
        tasks=(
            *(_command(task_id, "wc", "-w", str(path)) for task_id, path in counts.items()),
            _command("total", REPORT, "total", depends_on=everything),
            _command("sorted", REPORT, "sorted", depends_on=everything),
            msgspec.structs.replace(
                _command("check", REPORT, "check", depends_on=("total", *everything)),
                type="critic",
                target="total",
            ),
        ),
    )


def _command(
    task_id: str, program: str, *arguments: str, depends_on: tuple[str, ...] = ()
) -> TaskSpec:
    wanted: dict[str, object] = {"program": program, "args": arguments}
    if depends_on:
        wanted["stdin_from"] = "dependencies"
    return TaskSpec(
        id=task_id,
        kind="command",
        input=Raw(msgspec.json.encode(wanted)),
        depends_on=depends_on,
        timeout_s=30,
    )
