"""How a fault is injected and healed, and which nodes and instances it strikes."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import msgspec

from tests.cluster.farm import Farm


class Reach(msgspec.Struct, frozen=True):
    """Which nodes and instances a fault strikes: see `tests.cluster.record.FaultRun`."""

    nodes: tuple[int, ...] = ()
    apart: tuple[int, ...] = ()
    stranded: tuple[int, ...] = ()
    silent: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()
    clocks: tuple[int, ...] = ()
    quorum: bool = True
    lag_s: float = 0.0


Injection = Callable[[Farm], AbstractAsyncContextManager[Reach]]
"""Injects on entry, heals on exit."""
