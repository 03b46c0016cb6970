"""Calls a function when no event has come for a while, once for each silence."""

import threading
from collections.abc import Callable
from typing import Self


class Silence:
    """Calls ``tell`` on a thread of its own after ``seconds`` without `broken`, once a silence."""

    def __init__(self, seconds: float, tell: Callable[[], None]) -> None:
        self._seconds = seconds
        self._tell = tell
        self._news = threading.Event()
        self._over = False
        self._thread = threading.Thread(target=self._watch, name="silence", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._news.set()

    def broken(self) -> None:
        """Something has happened."""
        self._news.set()

    def _watch(self) -> None:
        while not self._over:
            if not self._news.wait(self._seconds):
                self._tell()
                self._news.wait()
            self._news.clear()
