"""Reads whose answer "there is none" must be true on every instance."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from service.core.core import Core

T = TypeVar("T")


async def certain(core: Core, find: Callable[[], Awaitable[T | None]]) -> T | None:
    """What ``find`` finds; nothing only if another instance has not just written it either.

    Raises LogUnavailable.
    """
    found = await find()
    if found is None:
        await core.newest()
        found = await find()
    return found
