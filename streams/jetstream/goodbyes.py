"""What the instances on one log tell each other beside it: that an owner has said goodbye.

A message here is no fact. It is kept nowhere and may be lost, so nothing may depend on it for
safety: where it does not arrive, an instance acts later than it could.
"""

import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from streams.jetstream.connection import Connection
from streams.jetstream.messages import Delivery, render
from streams.json_values import UNREADABLE
from streams.subjects import GOODBYES

OnGoodbye = Callable[[str], None]
OnRefused = Callable[[str], None]
"""Is called with the server's words when Holdfast's user may not use these subjects."""


class OwnerLeft(msgspec.Struct, frozen=True):
    """``owner`` has said goodbye to the instance that sends this; ``sender`` names its process."""

    owner: str
    sender: str


_owner_left = msgspec.json.Decoder(OwnerLeft).decode


class Goodbyes:
    """What one instance tells the others of owners that have ended, and what it hears of them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sender = secrets.token_hex(8)  # two instances may share a configured id by mistake
        self._subject = connection.names.outside(GOODBYES)

    async def listen(self, on_goodbye: OnGoodbye, on_refused: OnRefused) -> None:
        """Call ``on_goodbye`` with each owner that says goodbye to another instance.

        Raises LogUnavailable without a connection.
        """

        def deliver(messages: Sequence[Delivery]) -> None:
            for _, _, _, payload in messages:
                with suppress(*UNREADABLE):
                    said = _owner_left(payload)
                    if said.sender != self._sender:
                        on_goodbye(said.owner)

        await self._connection.listen_if_allowed(self._subject, deliver, on_refused)

    def tell(self, owner: str) -> None:
        """Tell the other instances; nothing happens without a connection."""
        said = msgspec.json.encode(OwnerLeft(owner, self._sender))
        with suppress(ConnectionError):
            self._connection.send(render(self._subject.encode(), b"", b"", said))
