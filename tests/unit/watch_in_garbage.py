"""Looks at a loop's thread again and again while the collector has a `threading.local` to free."""

import gc
import threading

from service.signals.loop_lag import Lag
from service.signals.metrics.registry import Metrics

LOOKS = 300


class Ring:
    """Only the collector can free it."""

    def __init__(self) -> None:
        self.ring = self
        self.kept = threading.local()


def main() -> None:
    lag = Lag("loop", "api", Metrics())
    lag.thread_id = threading.get_ident()
    for _ in range(LOOKS):
        gc.disable()
        Ring()
        gc.set_threshold(1)  # the next object is one too many
        gc.enable()
        lag.where()
    print("looked")  # noqa: T201


if __name__ == "__main__":
    main()
