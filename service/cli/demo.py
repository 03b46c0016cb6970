"""`holdfast demo zombie`: freezes a worker past its lease and shows what is seen of its return."""

import signal

import httpx

from service.cli.client import FAILED, OK, UNREACHABLE, complain
from service.ops.demo.stage import Stage, StageFailure
from service.ops.demo.zombie import Zombie
from service.runtime.terminal import escaped


def zombie(url: str, token: str | None) -> int:
    """Tell the story, on a service of its own if ``url`` is empty; answers the exit code."""
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
