"""How much of an instance one client may hold: connections, streams, waiting claims.

A client is a principal, or, without tokens, an address. Addresses of loopback are not told apart:
behind them are this machine's accounts, which are trusted, or a proxy that stands for many clients.
"""

from collections import Counter
from functools import lru_cache
from ipaddress import ip_address

REMEMBERED = 4096  # addresses


class Shares:
    """Counts what clients hold; bounded in all, and per client where the client is known."""

    def __init__(self, total: int, each: int) -> None:
        self._total = total
        self._each = each
        self._held: Counter[str] = Counter()
        self.held = 0

    @property
    def full(self) -> bool:
        """Whether the bound in all is reached."""
        return self.held >= self._total

    def take(self, client: str | None) -> bool:
        """Count one more for ``client`` unless a bound is reached; then answers False."""
        if self.full or (client is not None and self._held[client] >= self._each):
            return False
        self.held += 1
        if client is not None:
            self._held[client] += 1
        return True

    def largest(self) -> tuple[str, int] | None:
        """The client that holds most, and how many; None where no client is known."""
        return next(iter(self._held.most_common(1)), None)

    def give_back(self, client: str | None) -> None:
        """Undo one `take` that was granted."""
        self.held -= 1
        if client is None:
            return
        self._held[client] -= 1
        if not self._held[client]:
            del self._held[client]


@lru_cache(REMEMBERED)
def client_at(address: str) -> str | None:
    """The client at an address; None for loopback. A network of IPv6 (/64) is one client."""
    try:
        found = ip_address(address.removeprefix("::ffff:"))
    except ValueError:
        return None  # no address: a socket of this machine
    if found.is_loopback:
        return None
    return str(found) if found.version == 4 else found.exploded[:19]  # noqa: PLR2004
