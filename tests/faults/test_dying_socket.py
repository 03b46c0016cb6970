"""The instant between the death of a socket and the news of it: found by the crash rounds."""

import pytest

from streams.jetstream.raw_client import RawClient


class Dead:
    """A transport of uvloop whose other end is gone."""

    def write(self, _commands: bytes) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport>; the handler is closed")


def test_writing_to_a_socket_that_has_just_died_is_a_lost_connection() -> None:
    client = RawClient()
    # The fields of the NATS client: no real socket can be held in this instant.
    client._status = RawClient.CONNECTED  # noqa: SLF001
    client._transport = Dead()  # noqa: SLF001  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ConnectionError):
        client.write(b"PING\r\n")
