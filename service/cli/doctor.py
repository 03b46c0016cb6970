"""`holdfast doctor`: asks an instance what is wrong with it, and looks for itself when it is mute.

The check-up runs on a thread of its own, so that its end does not depend on anything that hangs.
"""

import os
import sys
import threading

import msgspec
import uvloop

from service.cli.client import Instance
from service.ops.doctor.checkup import LONGEST_S, CheckUp, Target
from service.ops.doctor.report import Report, with_runbook_at
from service.ops.doctor.text import lines
from service.runtime.data_folder import READ_MODELS, last_trace
from service.runtime.nats_server.embedded import log_of
from service.runtime.terminal import escaped, escaped_json
from service.settings.config import Settings

_encode = msgspec.json.Encoder().encode


def doctor(instance: Instance, settings: Settings | None, *, as_json: bool) -> int:
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


def _target(instance: Instance, settings: Settings | None) -> Target:
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
    for line in lines(report):
        print(escaped(line))
