"""The watch over the loops, and Python's collector."""

import gc
import os

from service.runtime.tuning import uncollected
from tests.prepared_python import run_prepared


def test_where_a_loop_is_held_can_be_told_while_anything_waits_to_be_collected() -> None:
    """Python 3.11 waits for itself for ever where its collector runs while frames are listed."""
    done = run_prepared("tests.unit.watch_in_garbage", environment=os.environ, within_s=30)
    assert (done.returncode, done.stdout) == (0, b"looked\n"), done.stderr


def test_the_collector_goes_on_when_the_last_block_has_ended() -> None:
    assert gc.isenabled()
    first, second = uncollected(), uncollected()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not gc.isenabled()
    second.__exit__(None, None, None)
    assert gc.isenabled()
