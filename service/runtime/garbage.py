"""How often Python looks for reference cycles: seldom, because what the fold makes has none.

Plans, tasks and facts are freed by their counts. The collector walks all of them again and again
for nothing: measured at a tenth of a rebuild, and at milliseconds of the loop with a large board.
"""

import gc
from collections.abc import Generator
from contextlib import contextmanager

YOUNG, MIDDLE, OLD = 20_000, 20, 50  # Python's own thresholds are 700, 10, 10


def collect_seldom() -> None:
    """Set the thresholds of a process that serves; what exists now is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)


@contextmanager
def uncollected() -> Generator[None]:
    """No search for cycles inside the block; for bounded work that makes none."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
