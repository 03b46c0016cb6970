"""Processes as the kernel knows them: children that end with their parent, and their states.

The one place that knows prctl and /proc. `dying_with_parent` gives the command line of a program
that dies with the process which started it, however that process ends. Run as a script, this file
asks the kernel for the end of its parent and then becomes the program, under the same process id.
It is a script and not a `preexec_fn`, because forking Python code in a process with threads may
deadlock. It is started with -I -S and imports little, because it is started often.
"""

import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
CANNOT_RUN = 127  # what a shell answers for a program that it cannot start
PROC = "/proc"


def dying_with_parent(program: str, *arguments: str) -> list[str]:
    """The command line that runs `program` and kills it when the *thread* that starts it ends.

    Start it from a thread that lives as long as the child should. Where the kernel has no such
    wish (anything but Linux) the program outlives its parent.
    """
    if sys.platform != "linux":
        return [program, *arguments]
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), program, *arguments]


def end_with_parent() -> None:
    """Let the kernel kill this process when the thread that started it ends; raises OSError."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def inherit_orphans() -> None:
    """Become the parent of every descendant whose parent ends; raises OSError."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def hide_memory() -> None:
    """Let no process of this account read this one's memory and environment; raises OSError."""
    _prctl(PR_SET_DUMPABLE, 0)


def _prctl(option: int, value: int) -> None:
    if sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415 - only where it is of use

    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl: {os.strerror(number)}")


def process_state(pid: int) -> str:
    """The kernel's letter for a process, as `ps` shows it; "" where there is none.

    "?" where the kernel cannot be asked.
    """
    if not os.path.exists(PROC + "/self/stat"):  # noqa: PTH110 - pathlib is slow to import
        return "?"
    fields = _stat(pid)
    return fields[0].decode() if fields else ""


def family(root: int) -> list[int]:
    """Everything below the process ``root``, as far as can be seen."""
    parents = {pid: int(fields[1]) for pid, fields in _stats().items()}
    found = [root]
    for ancestor in found:
        found += [pid for pid, parent in parents.items() if parent == ancestor]
    return found[1:]


def session(leader: int) -> list[int]:
    """The processes of the session that ``leader`` began, without it."""
    return [pid for pid, fields in _stats().items() if int(fields[3]) == leader and pid != leader]


def threads_of(uid: int) -> int:
    """How many threads the processes of an account have, as the kernel counts them for a limit."""
    found = 0
    for pid, fields in _stats().items():
        try:
            if os.stat(f"{PROC}/{pid}").st_uid == uid:  # noqa: PTH116 - as above
                found += int(fields[17])
        except OSError:
            continue
    return found


def resident_bytes(pid: int) -> int:
    """The memory that a process holds; 0 where there is none, or the kernel cannot be asked."""
    try:
        with open(f"{PROC}/{pid}/statm", "rb") as statm:  # noqa: PTH123 - as above
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _stats() -> dict[int, list[bytes]]:
    if sys.platform != "linux":
        return {}
    found: dict[int, list[bytes]] = {}
    for name in os.listdir(PROC):  # noqa: PTH208 - pathlib is slow to import
        if name.isdigit() and (fields := _stat(int(name))):
            found[int(name)] = fields
    return found


def _stat(pid: int) -> list[bytes]:
    """State, parent, group, session and more; nothing for a process that is not there."""
    try:
        with open(f"{PROC}/{pid}/stat", "rb") as stat:  # noqa: PTH123 - as above
            return stat.read().rpartition(b")")[2].split()
    except OSError:
        return []


def main(parent: int, command: list[str]) -> int:
    """Become `command`, tied to `parent`; returns only when that is impossible."""
    try:
        end_with_parent()
        if os.getppid() == parent:  # else it ended before the kernel knew of our wish
            os.execv(command[0], command)  # noqa: S606 - no shell is wanted
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
    return CANNOT_RUN


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
