"""Starts a module of ours as a process with a socket to it."""

import os
import socket
import subprocess
import sys


def start_with_socket(
    module: str, *arguments: str
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """The process, and our end of its socket; it finds modules where this process does.

    Its first argument is the descriptor of its own end, then come ``arguments``. Raises OSError.
    """
    ours, theirs = socket.socketpair()
    search_path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109
    try:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno()), *arguments],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=os.environ | {"PYTHONPATH": search_path},
                process_group=0,  # Ctrl-C and the end of a terminal are the parent's business
            )
    except OSError:
        ours.close()
        raise
    return process, ours
