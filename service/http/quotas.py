"""What one client may ask for: writes and bytes per second, open streams, waiting claims.

Over a bound the answer is 429 with the number. Clients are as in `service.http.shares`.
"""

import math
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from service.http.problems import RequestRefused
from service.http.shares import Shares, client_at
from service.settings.config import HttpSettings

BURST_S = 10.0  # a client that was quiet may send what its rate allows in so many seconds at once
REMEMBERED = 10_000  # clients; those that have been quiet are forgotten first
RETRY_LATER_S = 5


class Rate:
    """A bound on an amount per second for each client, by one time per client (GCRA)."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_s = per_s
        self._clock = clock
        self._paid_until: dict[str, float] = {}

    def spend(self, client: str, amount: float) -> float:
        """Count ``amount``; answers 0, or, when it was not counted, after how many s to ask again.

        One amount may be larger than what is left: the next ones wait for it.
        """
        now = self._clock()
        paid_until = max(self._paid_until.get(client, now), now)
        if (wait_s := paid_until - now - BURST_S) > 0:
            return wait_s
        if len(self._paid_until) >= REMEMBERED and client not in self._paid_until:
            self._forget(now)
        self._paid_until[client] = paid_until + amount / self.per_s
        return 0.0

    def _forget(self, now: float) -> None:
        """Forget those who owe nothing; all of them, if none is quiet."""
        self._paid_until = {each: at for each, at in self._paid_until.items() if at > now}
        if len(self._paid_until) >= REMEMBERED:
            self._paid_until.clear()


class Quotas:
    """The bounds of one instance."""

    def __init__(self, settings: HttpSettings) -> None:
        self._writes = Rate(settings.writes_per_s)
        self._bytes = Rate(settings.bytes_per_s)
        self._each = {
            "event streams": settings.max_streams_per_client,
            "waiting claims": settings.max_waiting_claims_per_client,
        }
        self._held = {what: Shares(NO_BOUND, each) for what, each in self._each.items()}

    def admit_write(self, client: str, size: int) -> None:
        """Count a request that changes something and has ``size`` bytes. Raises RequestRefused."""
        for rate, amount, what in ((self._writes, 1, "requests"), (self._bytes, size, "bytes")):
            if (wait_s := rate.spend(client, amount)) > 0:
                detail = f"more than {rate.per_s:,.10g} {what} per second of one client"
                raise _too_many(detail, math.ceil(wait_s))

    @contextmanager
    def one_of(self, what: str, client: str | None) -> Generator[None]:
        """Hold one of the client's "event streams" or "waiting claims". Raises RequestRefused."""
        held = self._held[what]
        if not held.take(client):
            raise _too_many(f"one client has {self._each[what]:,} {what} already", RETRY_LATER_S)
        try:
            yield
        finally:
            held.give_back(client)


NO_BOUND = 2**63  # the totals are bounded where streams and claims are kept


def client_of(scope: Any) -> str | None:  # noqa: ANN401 - ASGI's scope
    """The client that asks: its principal's name, or else its address; None for loopback."""
    principal = scope.get("auth")
    if principal is not None:
        return f"principal {principal.name}"
    return client_at((scope.get("client") or ("", 0))[0])


def _too_many(detail: str, wait_s: int) -> RequestRefused:
    return RequestRefused("too_many", detail, {"Retry-After": str(wait_s)})
