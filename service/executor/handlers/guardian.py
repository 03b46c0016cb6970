"""Runs one program and ends all its descendants with it, also when the service is killed.

Run as a script by the ``command`` handler: ``guardian.py CONTROL BOUNDS PROGRAM NAME ARGUMENT…``.
BOUNDS is what `command_line.CommandLine.bounds` writes. CONTROL is the reading end of a pipe whose
other end the service holds. When that end closes, because the handler stops the program or
because the service was killed, all processes below are ended: SIGTERM first, SIGKILL after a grace.
On Linux orphans of the program are inherited by the guardian (PR_SET_CHILD_SUBREAPER), so that even
those that left its process group are found.

It is a script and not a ``preexec_fn``, because forking Python code in a process with threads may
deadlock, and it imports little, because it is started for every command.
"""

import os
import select
import signal
import sys
import time

if __name__ == "__main__":  # started with -I -S, which knows no other folder than Python's own
    sys.path.append(__file__.rpartition("/service/")[0])

from service.runtime.child_process import (
    CANNOT_RUN,
    end_with_parent,
    family,
    inherit_orphans,
    session,
    threads_of,
)

GRACE_S = 1.0
SWEEP_S = 0.01
MAX_SWEEPS = 200


def _start(bounds: dict[str, str], program: str, arguments: list[str]) -> int:
    """Fork and become ``program``, in a process group of its own; the child's id."""
    guardian = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        os.setpgid(0, 0)
        _bound(bounds)
        end_with_parent()  # after the change of account, which would undo it
        if os.getppid() != guardian:
            os._exit(CANNOT_RUN)
        for number in (signal.SIGPIPE, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.execv(program, arguments)  # noqa: S606 - no shell is wanted
    except (OSError, ValueError) as error:
        os.write(2, f"{program}: {getattr(error, 'strerror', None) or error}\n".encode())
    os._exit(CANNOT_RUN)


def _bound(bounds: dict[str, str]) -> None:
    """Take on the bounds, the folder and the account of the program. Raises OSError, ValueError."""
    import resource  # noqa: PLC0415 - in the child alone

    with open("/proc/self/oom_score_adj", "w") as adjusted:  # noqa: PTH123 - see above
        adjusted.write("800")  # rather this program than the service
    os.chdir(bounds["folder"])
    if "uid" in bounds:
        os.setgroups([])
        os.setgid(int(bounds["gid"]))
        os.setuid(int(bounds["uid"]))
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_DATA: int(bounds["memory"]),
        resource.RLIMIT_NOFILE: int(bounds["open_files"]),
        resource.RLIMIT_FSIZE: int(bounds["file"]),
        resource.RLIMIT_CPU: int(bounds["cpu"]),
        resource.RLIMIT_NPROC: int(bounds["processes"]) + threads_of(os.getuid()),
    }
    for kind, most in limits.items():
        hard = resource.getrlimit(kind)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (bound, bound))


def end_session(leader: int) -> None:
    """Kill what a guardian that was killed itself has left running in its session."""
    for process in session(leader):
        _kill(process, signal.SIGKILL)


def _kill(process: int, number: int) -> None:
    """Send a signal to a process, or a group (negative) that may have ended or not begun."""
    try:
        os.kill(process, number)
    except (ProcessLookupError, PermissionError):
        return


def _signal_all(child: int, number: int) -> None:
    """Send a signal to the program's group and to every descendant outside it."""
    _kill(-child, number)
    for process in family(os.getpid()):
        _kill(process, number)


def _reaped(child: int) -> tuple[int | None, bool]:
    """Reap the dead: the child's wait status if it was among them, and whether any are left."""
    status: int | None = None
    while True:
        try:
            process, its_status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status, False
        if process == 0:
            return status, True
        if process == child:
            status = its_status


def _watch(child: int, control: int, deaths: int) -> int:
    """Wait for the program's end, or bring it about when the control pipe closes; its status."""
    kill_at: float | None = None
    while True:
        status, _ = _reaped(child)
        if status is not None:
            return status
        if kill_at is not None and time.monotonic() >= kill_at:
            _signal_all(child, signal.SIGKILL)
            kill_at = time.monotonic() + GRACE_S
        wait_s = None if kill_at is None else max(kill_at - time.monotonic(), 0)
        watched = [deaths] if kill_at is not None else [control, deaths]
        ready, _, _ = select.select(watched, [], [], wait_s)
        if deaths in ready:
            os.read(deaths, 512)
        if control in ready:
            _signal_all(child, signal.SIGTERM)
            kill_at = time.monotonic() + GRACE_S


def _sweep(child: int) -> None:
    """End whatever the program left running."""
    for _ in range(MAX_SWEEPS):
        _signal_all(child, signal.SIGKILL)
        if not _reaped(child)[1]:
            return
        time.sleep(SWEEP_S)


def _end_as(status: int) -> None:
    """End like the program did, by the same code or the same signal."""
    if os.WIFSIGNALED(status):
        import resource  # noqa: PLC0415 - rarely needed

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status))


def _ignore(_number: int, _frame: object) -> None:
    """A handler and not SIG_IGN, which the program would inherit."""


def main(control: int, bounds: str, program: str, arguments: list[str]) -> None:
    """Run ``program`` to its end, or until the control pipe is closed."""
    os.set_inheritable(control, False)  # noqa: FBT003 - its signature
    inherit_orphans()
    deaths, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _ignore)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _ignore)  # the control pipe decides
    child = _start(dict(each.split("=", 1) for each in bounds.split("\n")), program, arguments)
    with open(os.devnull) as nothing:  # noqa: PTH123 - see above
        os.dup2(nothing.fileno(), 0)  # the program's end of its input is the only one
    status = _watch(child, control, deaths)
    _sweep(child)
    _end_as(status)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
