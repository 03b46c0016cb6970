"""The parts of a check-up: each has its own time limit, and the outcome of each is kept."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx
import msgspec

from service.ops.doctor.report import SourceReport

T = TypeVar("T")


class Parts:
    """Runs parts of a check-up, each within its time, and remembers how each went."""

    def __init__(self) -> None:
        self.done: list[SourceReport] = []
        self.under_way: dict[str, float] = {}

    async def take(
        self, name: str, within_s: float, action: Callable[[], Awaitable[T]]
    ) -> T | Exception:
        """What ``action`` answers, or why it did not."""
        self.under_way[name] = began = time.monotonic()
        result: T | Exception
        try:
            async with asyncio.timeout(within_s):
                result = await action()
        except (TimeoutError, httpx.TimeoutException) as error:
            result = error
            self._add(name, "hung", began, f"no answer within {within_s:g} s")
        except Exception as error:  # noqa: BLE001 - a part that fails is reported, the others go on
            result = error
            self._add(name, "failed", began, str(error) or type(error).__name__)
        else:
            self._add(name, "answered", began, "")
        del self.under_way[name]
        return result

    def skip(self, name: str, why: str) -> None:
        """Note a part that cannot be looked at."""
        self.done.append(SourceReport(name=name, state="skipped", took_s=0.0, detail=why))

    def of(self, name: str) -> SourceReport:
        """How a part went."""
        return next(part for part in self.done if part.name == name)

    def _add(self, name: str, state: str, began: float, detail: str) -> None:
        took_s = round(time.monotonic() - began, 3)
        self.done.append(
            msgspec.convert(
                {"name": name, "state": state, "took_s": took_s, "detail": detail}, SourceReport
            )
        )
