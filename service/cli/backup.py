"""`holdfast backup` and `holdfast restore`: the log and the read models, to a folder and back."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import uvloop

from projections.read_models.sqlite_file import DatabaseUnavailable
from service.cli.client import FAILED, OK, UNREACHABLE, complain
from service.cli.log_access import CANNOT_BE_HAD
from service.cli.options import command, with_settings
from service.cli.path_completion import folders
from service.ops.backups import BackupError, Manifest, back_up, restore_read_models
from service.ops.backups import restore as restore_backup
from service.settings.config import Settings

SHOW_EVERY_S = 1.0

_only_read_models = click.option(
    "--read-models", "only_read_models", is_flag=True, help="the read models alone, not the log"
)


@command(
    "backup",
    "copy the log and the read models to a new folder, while serving",
    more="The copy is of one moment: the log reaches at least as far as the read models.\n"
    "An external server's user needs $JS.API.STREAM.SNAPSHOT.* and $JS.SNAPSHOT.>.",
    examples="holdfast backup /backups/holdfast-2026-11-26\n"
    "holdfast backup --read-models /backups/read-models",
)
@click.argument("to", type=Path, shell_complete=folders)
@_only_read_models
@with_settings
def backup(read: Callable[[], Settings], *, to: Path, only_read_models: bool) -> int:
    """Make a backup; answers the exit code."""
    settings = read()

    def copy() -> Manifest:
        return uvloop.run(back_up(settings, to, _Shown(), only_read_models=only_read_models))

    return _copied(copy, to)


@command(
    "restore",
    "make a log and read models of a backup, where there are none",
    more="Each file is compared with its SHA-256 first. What exists is never overwritten:\n"
    "neither a data folder with a log in it nor a stream at an external server.\n"
    "--read-models lets an instance with an empty folder start on a large log in seconds:\n"
    "it reads only what came after them.",
    examples="holdfast restore --data-dir ./restored /backups/holdfast-2026-11-26\n"
    "holdfast restore --data-dir ./second --read-models /backups/read-models",
)
@click.argument("backup_folder", metavar="FROM", type=Path, shell_complete=folders)
@_only_read_models
@with_settings
def restore(read: Callable[[], Settings], *, backup_folder: Path, only_read_models: bool) -> int:
    """Restore a backup; answers the exit code."""
    settings = read()

    def copy() -> Manifest:
        if only_read_models:
            return restore_read_models(settings, backup_folder)
        return uvloop.run(restore_backup(settings, backup_folder, _Shown()))

    return _copied(copy, settings.data_dir)


def _copied(copy: Callable[[], Manifest], to: Path) -> int:
    os.umask(0o077)  # see service.cli.serve
    try:
        made = copy()
    except CANNOT_BE_HAD as error:
        return complain(error, UNREACHABLE)
    except (BackupError, DatabaseUnavailable, OSError) as error:
        return complain(error, FAILED)
    print(f"{to}: {_contents(made)}")
    return OK


class _Shown:
    """Shows how far a copy is, once a second."""

    def __init__(self) -> None:
        self._shown = time.monotonic()

    def __call__(self, stream: str, done: int) -> None:
        if time.monotonic() - self._shown >= SHOW_EVERY_S:
            self._shown = time.monotonic()
            print(f"  {stream}: {done / 1_000_000:,.1f} MB", file=sys.stderr, flush=True)


def _contents(made: Manifest) -> str:
    models = made.read_models_sequence
    folded = "no read models" if models is None else f"read models up to sequence {models:,}"
    if not made.streams:
        return folded
    log, trail = made.streams["plans"].copy, made.streams["audit"].copy
    return (
        f"{log.messages:,} facts up to sequence {log.last_sequence:,}, "
        f"{trail.messages:,} audit entries, {folded}"
    )
