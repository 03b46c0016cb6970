"""What goes over the connections of a test's logs: each write and each delivery may be changed."""

import re
from collections.abc import Callable, Sequence

import nats
import pytest

from streams.jetstream.messages import Deliver, Delivery
from streams.jetstream.raw_client import RawClient

Write = Callable[[bytes], None]
PassOn = Callable[[bytes, bytes, bytes, bytes], None]
Arriving = Callable[[PassOn, Delivery], None]
DIRECT_GET = re.compile(rb'DIRECT\.GET\.PLANS .*?"seq":(\d+)', re.DOTALL)


class Wire:
    """``sending``, ``answering`` and ``consuming`` see all that passes, and pass it on or do not.

    Answers to questions come by ``answering``, the messages of consumers by ``consuming``.
    """

    def __init__(self) -> None:
        self.clients: list[RawClient] = []
        self.pages_from: list[int] = []  # where the pages began that direct gets asked for
        self.sending: Callable[[Write, bytes], None] = lambda write, commands: write(commands)
        self.answering: Arriving = _pass_on
        self.consuming: Arriving = _pass_on

    def send(self, write: Write, commands: bytes) -> None:
        """One write of a client."""
        self.pages_from += map(int, DIRECT_GET.findall(commands))
        self.sending(write, commands)

    def hooked(self, subject: str, deliver: Deliver) -> Deliver:
        """What to call for messages on ``subject``; inboxes for answers end in a wildcard."""

        def hooked(messages: Sequence[Delivery]) -> None:
            for message in messages:
                arriving = self.answering if subject.endswith("*") else self.consuming
                arriving(lambda *passed: deliver([passed]), message)

        return hooked


def _pass_on(deliver: PassOn, message: Delivery) -> None:
    deliver(*message)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    """The wire of every connection that the test makes."""
    wire = Wire()
    listen, write = RawClient.listen, RawClient.write

    async def hooked_listen(client: RawClient, subject: str, deliver: Deliver) -> int:
        wire.clients.append(client)
        return await listen(client, subject, wire.hooked(subject, deliver))

    def hooked_write(client: RawClient, commands: bytes) -> None:
        wire.send(lambda given: write(client, given), commands)

    monkeypatch.setattr(RawClient, "listen", hooked_listen)
    monkeypatch.setattr(RawClient, "write", hooked_write)
    return wire


async def ask(url: str, subject: str, payload: bytes = b"") -> bytes:
    """What JetStream's API answers to a client of its own."""
    client = await nats.connect(url)
    try:
        return (await client.request(f"$JS.API.{subject}", payload, timeout=5)).data
    finally:
        await client.close()
