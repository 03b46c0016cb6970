"""A NATS message as bytes: how one is published, what an answer is, and what its status says."""

from collections.abc import Callable, Sequence

import msgspec

Delivery = tuple[bytes, bytes, bytes, bytes]
"""Subject, reply, headers (status line included, b"" when there are none) and payload."""

Deliver = Callable[[Sequence[Delivery]], None]
"""Takes in what came together for one subscription, in its order."""

STATUS_AT = len(b"NATS/1.0 ")


class Reply(msgspec.Struct, frozen=True, gc=False):
    """One answer: its header block (b"" for none) and its payload."""

    headers: bytes
    payload: bytes

    @property
    def status(self) -> bytes:
        """The three digits of a status message, or b"" for an ordinary one."""
        return status_of(self.headers)


class Lost(msgspec.Struct, frozen=True, gc=False):
    """No answer came; what was asked may or may not have been done."""

    reason: str


def status_of(headers: bytes) -> bytes:
    """The three digits of a status message (``NATS/1.0 404 ...``), or b"" for an ordinary one."""
    if headers[STATUS_AT - 1 : STATUS_AT] != b" ":
        return b""
    return headers[STATUS_AT : STATUS_AT + 3]


def render(subject: bytes, reply: bytes, lines: bytes, payload: bytes) -> bytes:
    """One publish command; ``lines`` are header lines, each ended by CRLF, or b"" for none."""
    if not lines:
        return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload)
    size = len(lines) + len(b"NATS/1.0\r\n\r\n")
    return b"HPUB %b %b %d %d\r\nNATS/1.0\r\n%b\r\n%b\r\n" % (
        subject,
        reply,
        size,
        size + len(payload),
        lines,
        payload,
    )
