"""`holdfast demo zombie`: freezes a worker past its lease; its late write is seen to be refused."""

import signal

import click
import httpx

from service.cli.client import FAILED, OK, UNREACHABLE, complain
from service.cli.options import command, with_token
from service.ops.demo.stage import Stage, StageFailure
from service.ops.demo.zombie import Zombie
from service.runtime.terminal import escaped


@command(
    "demo",
    "show a fault on real processes, and what is seen of it",
    more="zombie: a worker process is frozen past its lease, another one finishes its task,\n"
    "the first wakes up and writes. Its write is refused, and that shows in the answer, a\n"
    "metric, the audit trail and the doctor's findings. Takes some ten seconds; everything\n"
    "it starts is ended, and its folder removed. With --url it plays on a running instance,\n"
    "in whose log its plan remains. The exit code is 0 only if all of it was seen.",
    examples="holdfast demo zombie",
)
@click.argument("story", type=click.Choice(["zombie"]))
@click.option("--url", default="", help="an instance to play on (one of its own)")
@with_token
def demo(token: str | None, *, story: str, url: str) -> int:
    """Show a fault; answers the exit code."""
    del story  # there is one
    return zombie(url.rstrip("/"), token)


def zombie(url: str, token: str | None) -> int:
    """Show it, on a service of its own if ``url`` is empty; answers the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if not url:
            print("Starting a Holdfast of its own, in a folder that is removed at the end ...")
        with Stage(url, token) as stage, stage.connect() as client:
            missing = Zombie(stage, client, _say).tell()
    except (StageFailure, httpx.HTTPError) as error:
        return complain(error or type(error).__name__, UNREACHABLE)
    if missing:
        return complain(f"{len(missing)} of it was not seen: {'; '.join(missing)}", FAILED)
    print("All of it was seen. A stale worker can never change anything.")
    return OK


def _say(line: str) -> None:
    print(escaped(line), flush=True)
