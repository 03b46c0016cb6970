"""The standard streams of the process: always open, and for a server never a reason to fail.

A file that is opened while descriptor 1 or 2 is closed takes its place: what is printed then goes
into that file, and libuv aborts when it closes one of the three. A reader of standard output that
has gone, a full disk under it and a closed terminal fail each write; a service serves all the same.
"""

import io
import os
import sys
from typing import Any

DESCRIPTORS = {"stdin": 0, "stdout": 1, "stderr": 2}


def open_closed_streams() -> None:
    """Open the null device in place of each standard stream that is closed.

    Has to come before anything else opens a file.
    """
    for name, descriptor in DESCRIPTORS.items():
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free descriptor is this one: those below it are open by now.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003 - its signature
        if getattr(sys, name) is None:
            mode = "r" if descriptor == 0 else "w"
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def drop_what_cannot_be_written() -> None:
    """From now on a write to standard output or error that fails loses its text and raises nothing.

    It holds for handlers, too, which may print.
    """
    for name in ("stdout", "stderr"):
        raw = _Unfailing(DESCRIPTORS[name], "w", closefd=False)
        encoding = getattr(sys, name).encoding
        stream = io.TextIOWrapper(
            io.BufferedWriter(raw), encoding, errors="backslashreplace", line_buffering=True
        )
        setattr(sys, name, stream)


class _Unfailing(io.FileIO):
    """A file whose failed writes count as done."""

    def write(self, data: Any) -> int:  # noqa: ANN401 - any buffer, as the stream above has it
        """How many bytes were taken: all of them where they could not be written."""
        try:
            return super().write(data) or len(data)
        except OSError:
            return len(data)
