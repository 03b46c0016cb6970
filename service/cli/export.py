"""`holdfast export`: one plan's facts from the log as lines of JSON."""

import os
import sys
from collections.abc import Callable, Generator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import IO

import click
import uvloop

from service.archive.fact_lines import line_of, messages_of
from service.cli.client import FAILED, OK, UNREACHABLE, complain
from service.cli.id_completion import plans
from service.cli.log_access import CANNOT_BE_HAD, any_log
from service.cli.options import command, with_settings
from service.cli.path_completion import files
from service.settings.config import Settings
from streams.subjects import is_id


@command(
    "export",
    "write one plan's facts as lines of JSON",
    more="Each line is one message of the log: its sequence, time, subject, event, schema,\n"
    "headers and payload. It works beside a running instance and without one.",
    examples="holdfast export --plan demo\nholdfast export --plan demo --to demo.ndjson",
)
@click.option(
    "--plan", "plan_id", metavar="ID", required=True, shell_complete=plans, help="the plan"
)
@click.option(
    "--to", type=Path, metavar="FILE", shell_complete=files, help="a new file (standard output)"
)
@with_settings
def export(read: Callable[[], Settings], *, plan_id: str, to: Path | None) -> int:
    """Write the facts; answers the exit code."""
    if not is_id(plan_id):
        raise click.BadParameter("no plan can have this id", param_hint="--plan")
    settings = read()
    os.umask(0o077)  # see service.cli.serve
    try:
        with _output(to) as out:
            written = uvloop.run(_write(settings, plan_id, out))
    except CANNOT_BE_HAD as error:
        return complain(error, UNREACHABLE)
    except (LookupError, FileExistsError) as error:
        return complain(error, FAILED)
    if to is not None:
        print(f"{to}: {written:,} facts")
    return OK


async def _write(settings: Settings, plan_id: str, out: IO[bytes]) -> int:
    """Write the plan's facts page by page; answers how many they are.

    Raises LookupError where there are none, LogUnavailable.
    """
    written = 0
    async with AsyncExitStack() as stack:
        log = await any_log(settings, stack)
        async for page in messages_of(log, plan_id):
            out.writelines(map(line_of, page))
            written += len(page)
        out.flush()
    if not written:
        raise LookupError(f"the log has no plan '{plan_id}'")
    return written


@contextmanager
def _output(to: Path | None) -> Generator[IO[bytes]]:
    """Standard output, or a new file that stays only if it was written to its end."""
    if to is None:
        yield sys.stdout.buffer
        return
    with to.open("xb") as file:
        try:
            yield file
        except BaseException:
            to.unlink()
            raise
