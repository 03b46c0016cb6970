"""`holdfast archive`: shows and checks the archive of forgotten plans."""

import sys
from pathlib import Path

import click
import msgspec

from service.archive.days import ArchiveError, Closing, files_of, read
from service.archive.days import verify as verify_links
from service.cli.client import FAILED, OK, complain
from service.cli.options import command, config_file, given_or_set
from service.cli.path_completion import folders
from service.runtime.terminal import escaped
from streams.json_values import UNREADABLE
from streams.subjects import split_subject

KEY = "retention.archive_dir"


class _Line(msgspec.Struct, frozen=True):
    subject: str = ""


_decode = msgspec.json.Decoder(_Line).decode

_FOLDER = click.argument("folder", type=Path, required=False, shell_complete=folders)


def _folder(folder: Path | None, config: Path | None) -> Path:
    return given_or_set(folder, config, KEY, "name the folder of the archive")


@command(
    "show",
    "list the archived plans, or print the facts of one",
    more=f"Without a folder it is that of {KEY}. The facts are lines of JSON, as `holdfast\n"
    "export` prints them; a plan that was archived twice is printed twice.",
    examples="holdfast archive show /var/lib/holdfast/archive\n"
    "holdfast archive show /var/lib/holdfast/archive --plan demo",
)
@_FOLDER
@config_file
@click.option("--plan", "plan_id", metavar="ID", help="print the facts of this plan")
def show(folder: Path | None, config: Path | None, plan_id: str | None) -> int:
    """Print what the archive holds; answers the exit code."""
    shown = 0
    try:
        for path in files_of(_folder(folder, config)):
            for line in read(path):
                if plan_id is None and isinstance(line, Closing):
                    name = escaped(line.archived)
                    print(f"{path.name}  {line.at}  {line.facts:>7,} facts  {name}")
                    shown += 1
                elif plan_id is not None and isinstance(line, bytes) and _plan_of(line) == plan_id:
                    sys.stdout.buffer.write(line)
                    shown += 1
    except ArchiveError as error:
        return complain(error, FAILED)
    if plan_id is not None and not shown:
        return complain(f"the archive has no plan '{plan_id}'", FAILED)
    return OK


@command(
    "verify",
    "check that the archive is whole, entry by entry",
    more=f"Without a folder it is that of {KEY}. Each entry names the SHA-256 of the one before\n"
    "it; the first link that is broken is named, and the exit code is then 1.",
    examples="holdfast archive verify /var/lib/holdfast/archive",
)
@_FOLDER
@config_file
def verify(folder: Path | None, config: Path | None) -> int:
    """Check every link; answers the exit code."""
    found = _folder(folder, config)
    try:
        entries = verify_links(found)
    except ArchiveError as error:
        return complain(error, FAILED)
    print(f"{found}: {entries:,} entries, each follows the one before it")
    return OK


archive = click.Group(
    "archive",
    [show, verify],
    help="Show and check the archive of forgotten plans.",
    short_help="show and check the archive of forgotten plans",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _plan_of(line: bytes) -> str | None:
    try:
        place = split_subject(_decode(line).subject)
    except UNREADABLE:
        return None
    return place[0] if place else None
