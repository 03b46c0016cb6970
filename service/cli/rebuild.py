"""`holdfast rebuild`: folds the log into fresh read models, to replace or check the live ones."""

import os
from collections.abc import Callable

import click
import uvloop

from projections.integrity.verify import Comparison
from projections.read_models.sqlite_file import DatabaseUnavailable
from service.cli.client import FAILED, OK, UNREACHABLE, complain
from service.cli.log_access import CANNOT_BE_HAD
from service.cli.options import command, with_settings
from service.cli.refold import Rebuilt, replace_read_models, verify_read_models
from service.runtime.terminal import escaped
from service.settings.config import Settings


@command(
    "rebuild",
    "fold the log into fresh read models",
    more="Without --verify it replaces the read models of a data folder without an instance.\n"
    "With --verify it compares them with fresh ones, also beside a running instance;\n"
    "the exit code is then 0 if they are equal and 1 if they are not.",
    examples="holdfast rebuild --verify\nholdfast rebuild --data-dir /var/lib/holdfast",
)
@click.option("--verify", is_flag=True, help="compare, and change nothing")
@with_settings
def rebuild(read: Callable[[], Settings], *, verify: bool) -> int:
    """Replace the read models, or compare them with fresh ones; answers the exit code."""
    settings = read()
    os.umask(0o077)  # see service.cli.serve
    try:
        if verify:
            return _tell(*uvloop.run(verify_read_models(settings)))
        rebuilt = uvloop.run(replace_read_models(settings))
    except (DatabaseUnavailable, *CANNOT_BE_HAD) as error:
        return complain(error, UNREACHABLE)
    print(f"rebuilt up to sequence {rebuilt.sequence:,} in {rebuilt.took_s:.1f} s")
    return OK


def _tell(rebuilt: Rebuilt, found: Comparison) -> int:
    print(f"folded up to sequence {rebuilt.sequence:,} in {rebuilt.took_s:.1f} s")
    if not found.differences:
        print(f"equal: {found.rows:,} rows")
        return OK
    for difference in found.differences:
        print(escaped(str(difference)))
    return complain(f"the read models differ from the log ({found.rows:,} rows)", FAILED)
