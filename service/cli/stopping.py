"""What asks a serving process to stop or to read its settings again: signals and its terminal."""

import asyncio
import os
import signal
from collections.abc import Callable

import structlog

TERMINAL = "/dev/tty"

log = structlog.get_logger("holdfast.serve")


class StopRequests:
    """Listens for SIGTERM, Ctrl-C, SIGHUP and a terminal that closes, while its loop runs.

    ``asked`` resolves with what asked first. A Ctrl-C after that ends the process at once, by the
    signal itself: also when the loop is held.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.asked: asyncio.Future[str] = self._loop.create_future()
        self._reload: Callable[[], None] | None = None
        # `nohup` and its like start a process with SIGHUP ignored: it is to outlive its terminal.
        outlives = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._ends_with_terminal = has_terminal() and not outlives
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._ask, number.name)
        self._loop.add_signal_handler(signal.SIGHUP, self._on_hangup)

    def reload_with(self, reload: Callable[[], None]) -> None:
        """Call ``reload`` at each SIGHUP from now on; until then a SIGHUP changes nothing."""
        self._reload = reload

    def _on_hangup(self) -> None:
        """A service manager's SIGHUP asks for a reload; the kernel's says: the terminal closed."""
        if self._ends_with_terminal and not has_terminal():
            self._ask("the terminal has closed")
        elif self._reload is None:
            log.info("reload_ignored_while_starting")
        else:
            self._reload()

    def _ask(self, reason: str) -> None:
        if self.asked.done():
            return
        self.asked.set_result(reason)
        self._loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def has_terminal() -> bool:
    """Whether the process has a controlling terminal that is still there."""
    try:
        os.close(os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
