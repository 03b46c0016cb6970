"""Runs a program that dies with the process which started it, however that process ends.

`tethered` gives the command line to start. Run as a script, this file asks the kernel for the end
of its parent (PR_SET_PDEATHSIG) and then becomes the program, under the same process id. It is a
script and not a `preexec_fn`, because forking Python code in a process with threads may deadlock.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
CANNOT_RUN = 127  # what a shell answers for a program that it cannot start


def tethered(program: str, *arguments: str) -> list[str]:
    """The command line that runs `program` and kills it when the *thread* that starts it ends.

    Start it from a thread that lives as long as the child should. Where the kernel has no such
    wish (anything but Linux) the program runs untethered.
    """
    if sys.platform != "linux":
        return [program, *arguments]
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), program, *arguments]


def main(parent: int, command: list[str]) -> int:
    """Become `command`, tied to `parent`; returns only when that is impossible."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        sys.stderr.write(f"prctl: {os.strerror(ctypes.get_errno())}\n")
        return CANNOT_RUN
    if os.getppid() != parent:
        return CANNOT_RUN  # the parent ended before the kernel knew of our wish
    try:
        os.execv(command[0], command)  # noqa: S606 - no shell is wanted
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
    return CANNOT_RUN


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
