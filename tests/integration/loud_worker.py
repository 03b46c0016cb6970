"""A handler that prints far more than its reader takes, in a worker or in the executor.

python -m tests.integration.loud_worker
"""

import resource
import sys

from holdfast_worker import Task, Worker

MEBIBYTE = 2**20

worker = Worker("loud")


@worker.task("prints", lease_s=1.5)
def prints(_: Task, mebibytes: int) -> int:
    """Print so much; answers the most memory in bytes that this process has had."""
    line = "x" * (MEBIBYTE - 1)
    for _number in range(mebibytes):
        print(line)  # noqa: T201 - what is tried
    sys.stdout.flush()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    worker.run()
