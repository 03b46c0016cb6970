"""Ends a command when the reader of its output has ended, as in `holdfast events | head`."""

import os
import select
import stat
import sys
import threading

from service.cli.client import OK


def leave_with_reader() -> None:
    """From now on the process ends, with code 0, once its output has no reader.

    A write would notice too (see `service.cli.main.main`), but on a quiet stream the next one may
    be hours away, and a shell waits so long for `holdfast events | head`.
    """
    try:
        output = sys.stdout.fileno()
        is_pipe = stat.S_ISFIFO(os.fstat(output).st_mode)
    except (OSError, ValueError):  # no real file
        return
    if is_pipe:
        threading.Thread(target=_watch, args=(output,), name="reader", daemon=True).start()


def _watch(output: int) -> None:
    closed = select.poll()
    closed.register(output, 0)  # the end of the reader is reported always
    closed.poll()
    os._exit(OK)  # every line has been flushed when it was printed
