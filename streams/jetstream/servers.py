"""The servers that a URL list names, the credentials in it, and what of it may be printed.

User and password are percent-decoded: that is the only way to write ``@ : / , # %`` in them.
"""

import re
from urllib.parse import unquote, urlsplit

import msgspec

SCHEMES = ("nats", "tls")  # a WebSocket needs a client library that Holdfast does not bring along
OLDEST_VERSION = (2, 12)  # of nats-server: the first with atomic batches


class Servers(msgspec.Struct, frozen=True):
    """Addresses without credentials, and the credentials that all of them are given."""

    urls: tuple[str, ...]
    user: str | None = None
    password: str | None = None
    token: str | None = None


def servers_of(text: str) -> Servers:
    """The servers in a list separated by commas.

    Raises ValueError with a reason that holds nothing of ``text``.
    """
    found = [_server_of(part.strip()) for part in text.split(",")]
    given = {each[1:] for each in found if each[1:] != (None, None)}
    if len(given) > 1:
        raise ValueError("must name the same user and password for every server")
    user, password = given.pop() if given else (None, None)
    urls = tuple(each[0] for each in found)
    if password is None:
        return Servers(urls, token=user)
    return Servers(urls, user=user, password=password)


def _server_of(url: str) -> tuple[str, str | None, str | None]:
    """Its address, and its user (or token) and password as they were meant."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("must have a number as port; write a comma in a password as %2C") from None
    if parts.scheme in ("ws", "wss"):
        raise ValueError(
            "must be nats://host:port or tls://host:port; WebSockets are not supported"
        )
    if parts.scheme not in SCHEMES or not parts.hostname or port == 0:
        raise ValueError("must be nats://host:port or tls://host:port, several by commas")
    if parts.path or parts.query or parts.fragment:
        raise ValueError(
            "must end with the port; in a user or password write %40 for @, %3A for :, %2F for /, "
            "%2C for a comma, %23 for #, %3F for ? and %25 for %"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    address = f"{parts.scheme}://{host}" + (f":{port}" if port else "")
    user = None if parts.username is None else unquote(parts.username)
    return address, user, None if parts.password is None else unquote(parts.password)


def without_password(url: str) -> str:
    """``url``, or several by commas, as it may be printed, logged or written down.

    Hides all before an ``@``, and what stands in the place of a port and is no number.
    """
    return ",".join(map(_hidden, re.split(r",(?=\s*\w+://)", url)))


def _hidden(url: str) -> str:
    shown = re.sub(r"^(\s*\w+://)?.*@", r"\1***@", url, flags=re.DOTALL)
    return re.sub(r"^(\s*nats://[^/@:\[]*):(?!\d{1,5}/?$).*", r"\1:***", shown, flags=re.DOTALL)


def is_too_old(version: str) -> bool:
    """Whether nats-server's ``version`` lacks what Holdfast needs."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) < OLDEST_VERSION
