"""A program that tells how it was started, as JSON, then ends with a code or waits.

Usage: ``python -m tests.integration.telling_program CODE|wait``.
"""

import json
import os
import signal
import sys
from pathlib import Path

from streams.traceparent import new_traceparent

if __name__ == "__main__":
    told = {
        "arguments": sys.argv[1:],
        "mark": os.environ.get("MARK"),
        "variables": len(os.environ),
        "folder": str(Path.cwd()),
        "files": [number for number in range(3, 64) if Path(f"/proc/self/fd/{number}").exists()],
        "prepared": "service.app" in sys.modules,
        "trace": new_traceparent(),
        "interrupted": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    }
    print(json.dumps(told))  # noqa: T201
    if sys.argv[1] == "wait":
        signal.pause()
    sys.stderr.write("an error\n")
    sys.exit(int(sys.argv[1]))
