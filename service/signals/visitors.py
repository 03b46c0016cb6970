"""Counts of the HTTP server's clients that operators see: requests through proxies, connections."""

from typing import Protocol


class Shared(Protocol):
    """Connections and who holds them; see `service.http.shares.Shares`."""

    held: int

    def largest(self) -> tuple[str, int] | None:
        """The client that holds most, and how many; None where no client is known."""
        ...


class Visitors:
    """Counts of one instance, written on its loop."""

    def __init__(self) -> None:
        self.through_proxy = 0  # requests that a proxy sent to an instance without tokens
        self.connections: Shared | None = None

    def came_through_proxy(self) -> None:
        """A request without authentication bears a proxy's header."""
        self.through_proxy += 1
