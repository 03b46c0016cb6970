"""A look at the streams from outside: reads the log and the audit trail, makes and changes nothing.

For a diagnosis while no instance answers. Everything raises LogUnavailable.
"""

import msgspec

from streams.codec import split_headers
from streams.jetstream.access import URL_ALONE, Credentials
from streams.jetstream.connection import Connection
from streams.jetstream.drafts import DEFAULT_LIMITS
from streams.jetstream.log import JetStreamLog
from streams.jetstream.reader import Reader, seconds_of
from streams.log import LogReset, LogState, LogUnavailable
from streams.subjects import AUDIT
from streams.timestamps import rfc3339


class AuditMessage(msgspec.Struct, frozen=True):
    """One message of the stream AUDIT; ``at`` is its stream time."""

    sequence: int
    at: float
    payload: bytes


class Inspection:
    """A connection that only looks. Made by `open`."""

    def __init__(self, connection: Connection) -> None:
        self.log = JetStreamLog(connection, limits=DEFAULT_LIMITS, observer=None)
        self._audit = Reader(connection, connection.names.audit_stream, self.log.prove_audit)

    @classmethod
    async def open(
        cls, url: str, *, timeout_s: float, access: Credentials = URL_ALONE
    ) -> "Inspection":
        """Connect, and leave the streams as they are. Raises LogUnavailable."""
        connection = await Connection.open(
            url, name="holdfast doctor", timeout_s=timeout_s, access=access
        )
        return cls(connection)

    async def state(self) -> LogState:
        """The log's extent; a server without our log is one without a log."""
        try:
            return await self.log.state()
        except LogReset as error:
            raise LogUnavailable(str(error)) from error

    async def audited(self, event: str, since: float, limit: int) -> list[AuditMessage]:
        """The first ``limit`` audit messages of ``event`` after a time, the oldest first."""
        replies = await self._audit.page_since(f"{AUDIT}.{event}.>", rfc3339(since), limit)
        messages: list[AuditMessage] = []
        for reply in replies:
            headers = split_headers(reply.headers)
            at = seconds_of(headers[b"Nats-Time-Stamp"])
            messages.append(AuditMessage(int(headers[b"Nats-Sequence"]), at, reply.payload))
        return messages

    async def close(self) -> None:
        """Close the connection."""
        await self.log.close()
