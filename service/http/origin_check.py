"""Refuses requests that a web page of another site, or a proxy without tokens, can have caused.

A browser lets any page send requests to any address. A name that the page's owner makes point to
this machine (DNS rebinding) even lets the page read the answers. So `Host` must name this instance,
and `Origin` and `Sec-Fetch-Site` (W3C Fetch Metadata) must not name another site. The check runs
before routing, on every request.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import ip_address

from litestar.types import HTTPScope

from service.http.problems import RequestRefused

FORWARDED = re.compile(rb"forwarded|x-forwarded-.*").fullmatch
OWN_SITE = {b"same-origin", b"none"}
DEFAULT_PORTS = {"http": 80, "https": 443}
REMEMBERED = 256  # values of Host

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
RESPONSE_HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", CONTENT_POLICY),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
]
"""What every answer carries, refusals of the web server included."""

_split = re.compile(rb"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::([0-9]{1,5}))?").fullmatch


class OriginCheck:
    """Admits a request or refuses it, by its head alone."""

    def __init__(
        self,
        *,
        tokens: bool,
        allowed_hosts: Sequence[str] = (),
        on_proxy: Callable[[], None] = lambda: None,
    ) -> None:
        """``tokens``: every request is authenticated, so that `Host` may be any name.

        ``allowed_hosts`` are further names of this instance, with any port; with tokens they are
        the only ones, beside its addresses.
        """
        self._tokens = tokens
        self._on_proxy = on_proxy  # called for each request that a proxy sent without tokens
        self._names = frozenset(name.lower().encode() for name in allowed_hosts)
        self._any_host = tokens and not self._names
        # Asked once for each value that is admitted: `lru_cache` keeps no exceptions.
        self._check_host = lru_cache(REMEMBERED)(self._host_is_checked)

    def check(self, scope: HTTPScope) -> None:
        """Raises RequestRefused (invalid_request, forbidden)."""
        hosts: list[bytes] = []
        origins: list[bytes] = []
        for name, value in scope["headers"]:
            if name == b"host":
                hosts.append(value)
            elif name == b"origin":
                origins.append(value)
            elif name == b"sec-fetch-site":
                _check_site(value)
            elif not self._tokens and FORWARDED(name):
                self._on_proxy()
                raise _refused(
                    f"{name.decode('latin-1').title()}: an instance without auth.tokens_file "
                    "serves this machine only and must not stand behind a proxy"
                )
        host = _only(hosts, scope["http_version"])
        if host is not None:
            address, port = scope["server"] or ("", None)
            self._check_host(host, address, port, scope["scheme"])
        for origin in origins:
            _check_origin(origin, host, scope["scheme"])

    def _host_is_checked(self, host: bytes, address: str, port: int | None, scheme: str) -> None:
        """Refuse a ``Host`` that does not name the instance reached at ``address`` and ``port``."""
        found = _split(host.lower())
        if found is None:
            raise RequestRefused("invalid_request", "Host: it must be a name or address and a port")
        name, given = found.groups()
        if self._any_host or name in self._names:
            return
        default = DEFAULT_PORTS.get(scheme, 0)
        # An address is safe even where it is not loopback: rebinding needs a name.
        named = name == b"localhost" or _is_here(name.decode().strip("[]"), address)
        if not named or int(given or default) != (port or default):
            raise _refused(
                f"Host: {found[0].decode()} is not a name of this instance; it answers to "
                f"localhost, 127.0.0.1 and [::1] with port {port}, and to the names in "
                "http.allowed_hosts"
            )


def _only(hosts: list[bytes], http_version: str) -> bytes | None:
    """The one `Host`; HTTP/1.0 need not send it, and no browser speaks HTTP/1.0."""
    if len(hosts) > 1 or (not hosts and http_version != "1.0"):
        raise RequestRefused("invalid_request", "Host: it must be given, and once only")
    return hosts[0] if hosts else None


def _is_here(name: str, address: str) -> bool:
    try:
        given, here = ip_address(name), ip_address(address.removeprefix("::ffff:"))
    except ValueError:
        return False
    return given.is_loopback or given == here


def _check_site(value: bytes) -> None:
    if value.strip().lower() not in OWN_SITE:
        raise _refused("Sec-Fetch-Site: a page of another site must not use this API")


def _check_origin(origin: bytes, host: bytes | None, scheme: str) -> None:
    its_scheme, _, authority = origin.lower().decode("latin-1").partition("://")
    default = f":{DEFAULT_PORTS.get(its_scheme, '')}"
    own = (host or b"").lower().decode("latin-1").removesuffix(default)
    # Where this instance speaks no TLS, a proxy before it may.
    schemes = ("https",) if scheme == "https" else ("http", "https")
    if its_scheme not in schemes or not own or authority.removesuffix(default) != own:
        raise _refused("Origin: a page of another site must not use this API")


def _refused(detail: str) -> RequestRefused:
    return RequestRefused("forbidden", detail)
