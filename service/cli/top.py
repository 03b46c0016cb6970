"""`holdfast top`: what runs, waits and fails, live on the whole screen."""

import time
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from service.cli.asking import AskedInVain, ago, ask
from service.cli.client import OK, InstanceAddress
from service.cli.options import command, with_instance
from service.cli.plans import COLUMNS, row
from service.cli.table import console, fitted
from service.runtime.terminal import on_one_line

ROWS = 20


@command(
    "top",
    "show what runs, waits and fails, live until Ctrl-C",
    more="In a pipe, or with --once, it is printed once.",
    examples="holdfast top\nholdfast top --once",
)
@click.option("--every", type=click.FloatRange(0.5, 60), default=2.0, show_default=True)
@click.option("--once", is_flag=True, help="print it once")
@with_instance
def top(instance: InstanceAddress, *, every: float, once: bool) -> int:
    """Show it until Ctrl-C; answers the exit code."""
    out = console()
    if once or not out.is_terminal:
        out.print(_screen(instance, out.width))
        return OK
    with Live(_screen(instance, out.width), console=out, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(every)
            live.update(_shown(instance, out.width), refresh=True)


def _shown(instance: InstanceAddress, width: int) -> Group | Text:
    """The screen, or why there is none now: the next look may find the instance again."""
    try:
        return _screen(instance, width)
    except AskedInVain as error:
        return Text(on_one_line(str(error)), style="bold red")


def _screen(instance: InstanceAddress, width: int) -> Group:
    hour = ask(instance, "/v1/ops/history")
    report = ask(instance, "/v1/ops/doctor")
    plans = ask(instance, "/v1/plans", query={"limit": ROWS})["items"]
    workers = ask(instance, "/v1/workers", query={"limit": ROWS})["workers"]
    return Group(
        _line(hour, report),
        *(
            Text(f"! {on_one_line(each['summary'])}", style="yellow")
            for each in report["findings"][:5]
        ),
        Text(),
        fitted(COLUMNS[:-1], (row(each)[:-1] for each in plans), width),
        Text(),
        fitted(("OWNER", "HOLDS", "LIFE", "REFUSED"), map(_worker_row, workers), width),
    )


def _worker_row(worker: dict[str, Any]) -> tuple[object, ...]:
    life = ago(worker["last_sign_of_life"])
    return worker["owner"], worker["leases_held"], life, worker["refused"]


def _line(hour: dict[str, Any], report: dict[str, Any]) -> Text:
    now, minutes = hour["now"], hour["minutes"]
    failed = sum(each["failed"] for each in minutes)
    tokens = sum(each["tokens"] for each in minutes)
    style = "green" if report["status"] == "healthy" else "bold yellow"
    return Text.assemble(
        (f"{report['status']}  ", style),
        f"running {now['running']}  waiting {now['waiting']} (oldest {now['oldest_wait_s']:.0f}s)  "
        f"failed in the last hour {failed}  tokens {tokens:,}",
    )
