"""The commands, their flags, and errors in one line.

Exit codes are the same everywhere: 0 done, 1 it did not succeed, 2 it was asked wrongly (a flag, a
file, a setting), 3 something that is needed cannot be reached or had (a server, a port, a folder),
130 ended by Ctrl-C, as shells have it. Who no longer reads the output has had enough: 0.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from service.cli.client import FAILED, INTERRUPTED, OK, UNREACHABLE, USAGE, Instance, complain
from service.runtime.data_folder import DataFolderError
from service.runtime.terminal import escaped
from service.settings.config import ConfigError, Settings
from service.settings.loading import load_settings
from service.signals import logs

ROLES = ("api", "executor", "daemons")

EXIT_CODES = """\
exit codes: 0 done; 1 it did not succeed; 2 asked wrongly (flag, file, setting);
3 something needed cannot be reached (server, port, data folder); 130 ended by Ctrl-C"""

SETTINGS_HELP = """\
Settings come from holdfast.toml (or --config FILE), then the environment
(HOLDFAST_HTTP__PORT=8080), then these flags. `check-config` prints them all."""


class Commands(Protocol):
    """Where argparse takes sub-commands; its own type has no public name."""

    def add_parser(self, name: str, **given: Any) -> argparse.ArgumentParser:  # noqa: ANN401
        """A parser for one more command."""
        ...


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; answers the exit code. argparse itself ends with 2 on a wrong flag."""
    given = parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = given.command
    try:
        code = command(given)
        sys.stdout.flush()
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
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _discard_output() -> None:
    """What is buffered still would fail again at the end of the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parser() -> argparse.ArgumentParser:
    """Every command with its flags and help."""
    root = argparse.ArgumentParser(
        prog="holdfast",
        description="Runs the tasks of AI-agent plans under leases; every fact is in a log.",
        epilog=f"{EXIT_CODES}\n\nexample: holdfast serve",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = root.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_submit(commands)
    _add_events(commands)
    _add_doctor(commands)
    _add_demo(commands)
    _add_rebuild(commands)
    _add_check_config(commands)
    _add_rules(commands)
    _add_token(commands)
    return root


def _command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    says: str,
    more: str,
    exit_codes: str = EXIT_CODES,
) -> argparse.ArgumentParser:
    added = commands.add_parser(
        name,
        help=says,
        description=f"{says[0].upper()}{says[1:]}.",
        epilog=f"{more}\n\n{exit_codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added.set_defaults(command=run)
    return added


def _add_settings_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", type=Path, metavar="FILE", help="a TOML file of settings")
    command.add_argument("--data-dir", metavar="DIR", help="where data is kept (./data)")
    command.add_argument("--nats-url", metavar="URL", help="an existing server (embedded)")


def _settings(given: argparse.Namespace) -> Settings:
    flags = {
        "data_dir": given.data_dir,
        "nats.url": given.nats_url,
        "http.host": getattr(given, "host", None),
        "http.port": getattr(given, "port", None),
    }
    return load_settings(config_file=given.config, flags=flags)


# -- serve ------------------------------------------------------------------------------------


def _add_serve(commands: Commands) -> None:
    command = _command(
        commands,
        "serve",
        _serve,
        says="run an instance until Ctrl-C or SIGTERM",
        more=f"{SETTINGS_HELP}\n\nexamples:\n"
        "  holdfast serve\n"
        "  holdfast serve --port 8080 --data-dir /var/lib/holdfast\n"
        "  NATS_URL=nats://a:4222,nats://b:4222 holdfast serve --roles api,daemons",
    )
    command.add_argument(
        "--roles",
        type=_roles,
        default=frozenset(ROLES),
        metavar="LIST",
        help="what this instance does, separated by commas (api,executor,daemons)",
    )
    command.add_argument("--host", help="where the API listens (127.0.0.1)")
    command.add_argument("--port", metavar="PORT", help="where the API listens; 0: any (8000)")
    _add_settings_flags(command)


def _roles(text: str) -> frozenset[str]:
    roles = frozenset(role.strip() for role in text.split(","))
    if unknown := sorted(roles.difference(ROLES)):
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is no role; there are {', '.join(ROLES)}")
    return roles


def _serve(given: argparse.Namespace) -> int:
    settings = _settings(given)
    # Imported here: `submit` and `check-config` need none of it and should answer at once.
    from service.cli.serve import serve  # noqa: PLC0415
    from service.http.server import PortBusy  # noqa: PLC0415
    from service.runtime.nats_server.process import EmbeddedServerError  # noqa: PLC0415
    from streams.log import LogReset, LogUnavailable, TopologyMismatch  # noqa: PLC0415

    handler = logs.configure(settings.executor.instance_id)
    try:
        return serve(settings, given.roles, lambda: _settings(given))
    except (PortBusy, EmbeddedServerError, LogUnavailable, LogReset, TopologyMismatch) as error:
        handler.flush()
        return complain(error, UNREACHABLE)
    finally:
        handler.flush()


# -- the others -------------------------------------------------------------------------------


def _add_submit(commands: Commands) -> None:
    command = _command(
        commands,
        "submit",
        _submit,
        says="submit a plan",
        more="A plan without an id gets one here, so a retry never submits it twice.\n"
        "With --follow the exit code is 0 if the plan is COMPLETED, 1 if FAILED or CANCELLED.\n\n"
        "examples:\n"
        "  holdfast submit plan.json --follow\n"
        '  echo \'{"tasks": [{"id": "a", "kind": "echo"}]}\' | holdfast submit -',
    )
    command.add_argument("file", help="the plan as JSON; - reads it from standard input")
    command.add_argument(
        "--follow", action="store_true", help="print each event until the plan has ended"
    )
    _add_client_flags(command)


def _add_client_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--url", help="the instance to ask (http.host and http.port)")
    command.add_argument("--config", type=Path, metavar="FILE", help="a TOML file of settings")
    command.add_argument(
        "--token-file", type=Path, metavar="FILE", help="holds a bearer token, if one is needed"
    )


def _client(given: argparse.Namespace) -> Instance:
    """The instance to ask, and with which token."""
    url: str | None = given.url
    if url is None:
        http = load_settings(config_file=given.config).http
        host = f"[{http.host}]" if ":" in http.host else http.host
        url = f"{'https' if http.tls_cert else 'http'}://{host}:{http.port}"
    return Instance(url.rstrip("/"), _token(given))


def _token(given: argparse.Namespace) -> str | None:
    if given.token_file is None:
        return None
    try:
        return given.token_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file: {error}") from None


def _submit(given: argparse.Namespace) -> int:
    from service.cli.submit import submit  # noqa: PLC0415 - see _serve

    return submit(given.file, _client(given), follow=given.follow)


def _add_events(commands: Commands) -> None:
    command = _command(
        commands,
        "events",
        _events,
        says="print events as they happen",
        more="A lost connection is resumed where it broke off, for as long as it takes; that is\n"
        "told on standard error. Heartbeats come only if named in --types.\n"
        "A plan's own stream ends with the plan (exit code 0).\n\n"
        "examples:\n"
        "  holdfast events --plan demo\n"
        "  holdfast events --types task.failed,plan.finished\n"
        "  holdfast events --after 0 --json",
    )
    command.add_argument("--plan", metavar="ID", help="only this plan, from its beginning")
    command.add_argument("--task", metavar="ID", help="only the tasks with this id")
    command.add_argument("--types", metavar="LIST", help="only these types, separated by commas")
    command.add_argument("--json", action="store_true", help="each event as one JSON line")
    command.add_argument("--after", type=int, metavar="N", help="only what follows sequence N")
    _add_client_flags(command)


def _events(given: argparse.Namespace) -> int:
    from service.cli.events import events  # noqa: PLC0415 - see _serve
    from service.cli.follower import Asked  # noqa: PLC0415

    asked = Asked(plan_id=given.plan, task_id=given.task, types=given.types, after=given.after)
    return events(_client(given), asked, as_json=given.json)


DOCTOR_EXIT_CODES = """\
exit codes: 0 healthy; 1 a warning; 2 something critical (or a wrong flag); 3 cannot tell"""


def _add_doctor(commands: Commands) -> None:
    command = _command(
        commands,
        "doctor",
        _doctor,
        says="say what is wrong, how one knows, and what to do",
        more="Asks the instance, watches its event stream break off and resume, and, when the API\n"
        "does not answer, reads the log and SQLite itself. Changes nothing; ends within 15 s.\n"
        "Without --url it looks at the instance of the data folder, or of http.port.\n\n"
        "examples:\n"
        "  holdfast doctor\n"
        "  holdfast doctor --data-dir /var/lib/holdfast --json\n"
        "  holdfast doctor --url https://holdfast.example --token-file token",
        exit_codes=DOCTOR_EXIT_CODES,
    )
    command.add_argument("--json", action="store_true", help="the report as one JSON object")
    command.add_argument("--url", help="the instance to ask (the data folder's)")
    command.add_argument(
        "--token-file", type=Path, metavar="FILE", help="holds a bearer token, if one is needed"
    )
    _add_settings_flags(command)


def _doctor(given: argparse.Namespace) -> int:
    from service.cli.doctor import doctor  # noqa: PLC0415 - see _serve
    from service.runtime.data_folder import last_trace  # noqa: PLC0415

    settings = _settings(given)
    trace = last_trace(settings.data_dir)
    here = trace.holder.http_url if trace and trace.holder else ""
    named_here = bool(given.data_dir or given.nats_url or given.config)
    elsewhere = given.url is not None and given.url.rstrip("/") != here and not named_here
    if given.url is None and here:
        given.url = here
    instance = _client(given)
    return doctor(instance, None if elsewhere else settings, as_json=given.json)


def _add_demo(commands: Commands) -> None:
    command = _command(
        commands,
        "demo",
        _demo,
        says="show a fault on real processes, and what is seen of it",
        more="zombie: a worker process is frozen past its lease, another one finishes its task,\n"
        "the first wakes up and writes. Its write is refused, and that shows in the answer, a\n"
        "metric, the audit trail and the doctor's findings. Takes some ten seconds; everything\n"
        "it starts is ended, and its folder removed. With --url it plays on a running instance,\n"
        "in whose log its plan remains. The exit code is 0 only if all of it was seen.\n\n"
        "example: holdfast demo zombie",
    )
    command.add_argument("story", choices=["zombie"], help="what to show")
    command.add_argument("--url", default="", help="an instance to play on (one of its own)")
    command.add_argument(
        "--token-file", type=Path, metavar="FILE", help="holds a bearer token, if one is needed"
    )


def _demo(given: argparse.Namespace) -> int:
    from service.cli.demo import zombie  # noqa: PLC0415 - see _serve

    return zombie(given.url.rstrip("/"), _token(given))


def _add_rebuild(commands: Commands) -> None:
    command = _command(
        commands,
        "rebuild",
        _rebuild,
        says="fold the log into fresh read models",
        more="Without --verify it replaces the read models of a data folder without an instance.\n"
        "With --verify it compares them with fresh ones, also beside a running instance;\n"
        "the exit code is then 0 if they are equal and 1 if they are not.\n\n"
        "examples:\n"
        "  holdfast rebuild --verify\n"
        "  holdfast rebuild --data-dir /var/lib/holdfast",
    )
    command.add_argument("--verify", action="store_true", help="compare, and change nothing")
    _add_settings_flags(command)


def _rebuild(given: argparse.Namespace) -> int:
    settings = _settings(given)
    from service.cli.rebuild import rebuild  # noqa: PLC0415 - see _serve

    return rebuild(settings, verify=given.verify)


def _add_check_config(commands: Commands) -> None:
    command = _command(
        commands,
        "check-config",
        _check_config,
        says="print every setting, its value and where it came from",
        more=f"{SETTINGS_HELP}\n\nexample: HOLDFAST_HTTP__PORT=8080 holdfast check-config",
    )
    _add_settings_flags(command)


def _check_config(given: argparse.Namespace) -> int:
    described = _settings(given).describe()
    width = max(len(setting.key) for setting in described)
    for setting in described:
        value = "" if setting.value is None else setting.value
        print(escaped(f"{setting.key:<{width}} = {value}  ({setting.origin})"))
    return OK


def _add_rules(commands: Commands) -> None:
    command = _command(
        commands,
        "rules",
        _rules,
        says="print the alert rules for Prometheus, with the address of your runbook",
        more=f"{SETTINGS_HELP}\n\nobservability.runbook_url is where you publish "
        "service/ops/RUNBOOK.md; without it\nthe rules name the file.\n\n"
        "example: holdfast rules > /etc/prometheus/holdfast.yaml",
    )
    _add_settings_flags(command)


def _add_token(commands: Commands) -> None:
    from service.cli import token  # noqa: PLC0415 - see _serve

    group = commands.add_parser("token", help="make, list, revoke and convert tokens")
    actions = group.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], int], says: str
    ) -> argparse.ArgumentParser:
        return _command(actions, name, run, says=says, more=token.MORE)

    token.add_commands(command)


def _rules(given: argparse.Namespace) -> int:
    from service.ops import RULES  # noqa: PLC0415 - see _serve
    from service.ops.doctor.report import RUNBOOK  # noqa: PLC0415

    url = _settings(given).observability.runbook_url or RUNBOOK
    print(RULES.read_text(encoding="utf-8").replace(f" {RUNBOOK}#", f" {url}#"), end="")
    return OK
