"""`holdfast doctor`: asks an instance what is wrong, or reads the log and SQLite without it.

The check-up runs on a thread of its own, so that its end does not depend on anything that hangs.
"""

import os
import sys
import threading
from collections.abc import Callable

import click
import msgspec
import uvloop

from service.cli.client import InstanceAddress
from service.cli.options import as_json as as_json_flag
from service.cli.options import command, instance_of, with_settings, with_token
from service.cli.table import console
from service.ops.doctor.checkup import LONGEST_S, CheckUp, Target
from service.ops.doctor.report import Report, with_runbook_at
from service.ops.doctor.text import WIDTH, lines
from service.runtime.data_folder import READ_MODELS, last_trace
from service.runtime.nats_server.embedded import log_of
from service.runtime.terminal import escaped, escaped_json
from service.settings.config import Settings

_encode = msgspec.json.Encoder().encode


EXIT_CODES = """\
exit codes: 0 healthy; 1 a warning; 2 something critical (or a wrong flag); 3 cannot tell"""


@command(
    "doctor",
    "say what is wrong, how one knows, and what to do",
    more="Asks the instance, watches its event stream break off and resume, and, when the API\n"
    "does not answer, reads the log and SQLite itself. Changes nothing; ends within 15 s.\n"
    "Without --url it looks at the instance of the data folder, or of http.port.",
    examples="holdfast doctor\n"
    "holdfast doctor --data-dir /var/lib/holdfast --json\n"
    "holdfast doctor --url https://holdfast.example --token-file token",
    exit_codes=EXIT_CODES,
)
@click.option("--url", help="the instance to ask (the data folder's)")
@as_json_flag
@click.pass_context
@with_settings
@with_token
def doctor(
    token: str | None,
    read: Callable[[], Settings],
    context: click.Context,
    *,
    url: str | None,
    as_json: bool,
) -> int:
    """Print a report; answers its exit code."""
    settings = read()
    trace = last_trace(settings.data_dir)
    here = trace.holder.http_url if trace and trace.holder else ""
    given = context.params
    named_here = bool(given["data_dir"] or given["nats_url"] or given["config"])
    elsewhere = url is not None and url.rstrip("/") != here and not named_here
    instance = instance_of(url or here or None, given["config"], token)
    return diagnose(instance, None if elsewhere else settings, as_json=as_json)


def diagnose(instance: InstanceAddress, settings: Settings | None, *, as_json: bool) -> int:
    """Print a report; answers its exit code.

    ``settings`` None means that the instance is another machine's: only its API is asked.
    """
    check_up = CheckUp(_target(instance, settings))
    reports: list[Report] = []
    thread = threading.Thread(
        target=lambda: reports.append(uvloop.run(check_up.run())), name="doctor", daemon=True
    )
    thread.start()
    thread.join(LONGEST_S)
    report = reports[0] if reports else check_up.interrupted()
    if settings is not None:
        report = with_runbook_at(settings.observability.runbook_url, report)
    _show(report, as_json=as_json)
    if thread.is_alive():
        sys.stdout.flush()
        os._exit(report.exit_code)  # what hangs would hold up an orderly exit as well
    return report.exit_code


def _target(instance: InstanceAddress, settings: Settings | None) -> Target:
    if settings is None:
        return Target(
            url=instance.url, token=instance.token, data_dir=None, database=None, nats_url=""
        )
    trace = last_trace(settings.data_dir)
    holder = trace.holder if trace else None
    nats_url = settings.nats.url or (log_of(settings.data_dir, holder) if holder else "")
    return Target(
        url=instance.url,
        token=instance.token,
        data_dir=settings.data_dir,
        database=settings.data_dir / READ_MODELS,
        nats_url=nats_url,
        access=settings.nats.access,
    )


def _show(report: Report, *, as_json: bool) -> None:
    if as_json:
        print(escaped_json(_encode(report).decode()))
        return
    out = console()
    for line in lines(report, min(out.width, WIDTH) if out.is_terminal else WIDTH):
        print(escaped(line))
