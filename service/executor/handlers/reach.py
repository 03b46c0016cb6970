"""Which addresses the built-in handlers may connect to: public ones, and what the settings allow.

A name is resolved once, here, and the connection goes to the address that was judged. So a name
that changes its address between a check and the connection (DNS rebinding) leads nowhere else.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, cast

import httpcore
import msgspec

from holdfast_worker.failures import TaskFailed

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # NAT64: the last 32 bits are an IPv4 address


class Allowed(msgspec.Struct, frozen=True):
    """A network that may be reached, on one port or on any (None)."""

    network: Network
    port: int | None = None

    def covers(self, address: Address, port: int) -> bool:
        """Whether a connection there is allowed."""
        return address in self.network and self.port in (None, port)


def allowed_network(text: str) -> Allowed:
    """`10.0.0.0/8`, `127.0.0.1:11434` or `[::1]:11434`; raises ValueError."""
    host, port = text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    return Allowed(ipaddress.ip_network(host), int(port) if port else None)


class Reach(msgspec.Struct, frozen=True):
    """What a handler may connect to; ``anywhere`` is for URLs that the operator has named."""

    allowed: tuple[Allowed, ...] = ()
    anywhere: bool = False

    @classmethod
    def of(cls, networks: Iterable[str]) -> "Reach":
        """Public addresses and ``networks``; raises ValueError."""
        return cls(tuple(map(allowed_network, networks)))

    def complaint(self, address: str, port: int) -> str | None:
        """Why ``address`` may not be connected to; None: it may."""
        found = ipaddress.ip_address(address.partition("%")[0])
        if self.anywhere or any(each.covers(found, port) for each in self.allowed):
            return None
        if not all(each.is_global and not each.is_multicast for each in _meant(found)):
            return "is no public address"
        return "is an address of this machine" if is_own_address(address) else None


def _meant(address: Address) -> list[Address]:
    """The address itself, and the IPv4 addresses that it stands for."""
    if isinstance(address, IPv4Address):
        return [address]
    inside = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _TRANSLATED:
        inside.append(IPv4Address(int(address) & 0xFFFF_FFFF))
    found: list[Address] = [each for each in inside if each is not None]
    return found if address.ipv4_mapped else [address, *found]


def is_own_address(address: str) -> bool:
    """Whether it belongs to this machine: only then can a socket be bound to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
        return True


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections for httpcore, to addresses within ``reach`` alone."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._opener: httpcore.AsyncNetworkBackend = cast("Any", httpcore).AnyIOBackend()

    async def sleep(self, seconds: float) -> None:
        """Wait between two attempts to connect."""
        await self._opener.sleep(seconds)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Any = None,  # noqa: ANN401 - httpcore's own
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of ``host`` that answers; raises `TaskFailed`."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"{host} was not resolved in time") from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        reasons = {each: self._reach.complaint(each, port) for each in addresses}
        good = [each for each in addresses if reasons[each] is None]
        if not good:
            raise _denied(host, reasons)
        for address in good[:-1]:
            try:
                return await self._opener.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._opener.connect_tcp(
            good[-1], port, timeout, local_address, socket_options
        )


def _denied(host: str, reasons: dict[str, str | None]) -> TaskFailed:
    address, reason = next(iter(reasons.items()))
    named = host if address == host else f"{host} ({address})"
    message = f"{named} {reason}; executor.web.allow_networks names what may be reached besides"
    return TaskFailed("bad_input", message, retryable=False)
