"""The commands by name, and errors in one line.

Exit codes are the same everywhere: 0 done, 1 it did not succeed, 2 it was asked wrongly (a flag, a
file, a setting), 3 something that is needed cannot be reached or had (a server, a port, a folder),
130 ended by Ctrl-C, as shells have it. When the reader of the output has closed it: 0.
"""

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

import click

from service import VERSION
from service.cli.asking import AskedInVain
from service.cli.client import FAILED, INTERRUPTED, OK, UNREACHABLE, USAGE, complain
from service.cli.options import EXIT_CODES
from service.runtime.data_folder import DataFolderError
from service.settings.config import ConfigError

COMPLETE = "_HOLDFAST_COMPLETE"  # a shell sets it to ask for completions

COMMANDS = {
    "serve": "service.cli.serve",
    "submit": "service.cli.submit",
    "plans": "service.cli.plans",
    "show": "service.cli.show",
    "why": "service.cli.why",
    "pause": "service.cli.operate",
    "resume": "service.cli.operate",
    "cancel": "service.cli.operate",
    "retry": "service.cli.operate",
    "events": "service.cli.events",
    "workers": "service.cli.workers",
    "top": "service.cli.top",
    "audit": "service.cli.audit",
    "doctor": "service.cli.doctor",
    "demo": "service.cli.demo",
    "rebuild": "service.cli.rebuild",
    "export": "service.cli.export",
    "archive": "service.cli.archive",
    "backup": "service.cli.backup",
    "restore": "service.cli.backup",
    "check-config": "service.cli.check_config",
    "rules": "service.cli.rules",
    "token": "service.cli.token",
}
"""Where each command is defined; only that module is imported, so that commands begin at once."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = getattr(
            import_module(COMMANDS[cmd_name]), cmd_name.replace("-", "_")
        )
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is named. Raises UsageError with the names that look like it."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if near := get_close_matches(args[0], COMMANDS):
                hint = f"Did you mean {' or '.join(map(repr, near))}?"
                raise click.UsageError(f"{error.message} {hint}", ctx) from None
            raise


holdfast = _Commands(
    "holdfast",
    help="Runs the tasks of AI-agent plans under leases; every fact is in a log.",
    epilog=f"\b\n{EXIT_CODES}\n\n\b\nexample: holdfast serve\n\n\b\n"
    'completion: eval "$(_HOLDFAST_COMPLETE=bash_source holdfast)", or zsh_source;\n'
    "in fish: _HOLDFAST_COMPLETE=fish_source holdfast | source",
    context_settings={"help_option_names": ["-h", "--help"]},
)
click.version_option(VERSION, prog_name="holdfast")(holdfast)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; answers the exit code."""
    if COMPLETE in os.environ:
        holdfast.main(prog_name="holdfast", complete_var=COMPLETE)
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        # Not `holdfast.main`: click would print a line at Ctrl-C and end with 1 at a closed pipe.
        with holdfast.make_context("holdfast", given) as context:
            code = holdfast.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as ended:  # --help and --version
        return ended.exit_code
    except click.UsageError as error:
        error.show()
        return USAGE
    except AskedInVain as error:
        return complain(error, error.code)
    except ConfigError as error:
        return complain(error, USAGE)
    except DataFolderError as error:
        return complain(error, UNREACHABLE)
    except BrokenPipeError:  # the reader of our output has seen enough
        _discard_output()
        return OK
    except OSError as error:  # a full disk under our output, mostly
        _discard_output()
        return complain(error, FAILED)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    return int(code or OK)


def _discard_output() -> None:
    """What is buffered still would fail again at the end of the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
