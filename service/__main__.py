"""The command line: `holdfast`, or `python -m service`."""

import signal
import sys

from service.runtime.standard_streams import open_closed_streams


def main() -> int:
    """Prepare the process, then run one command; answers the exit code."""
    open_closed_streams()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Shells start background jobs of scripts so, and process managers stop them by SIGINT.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    from service.cli.main import main as run  # noqa: PLC0415 - its imports may open files

    return run()


if __name__ == "__main__":
    sys.exit(main())
