"""Reads NATS' protocol: messages for raw deliveries in a short loop, all else as nats-py does.

nats-py's parser tries a pattern for each kind of line and shortens its buffer after each part of a
message. While a log is read that is a third of the work, so whole messages of a chunk are taken
out of it here; what is left, or is no message, goes to nats-py's parser.
"""

from collections.abc import Mapping

from nats.aio.client import Client
from nats.protocol.parser import AWAITING_MSG_PAYLOAD, Parser

from streams.jetstream.messages import Deliver, Delivery

_LINE_END = b"\r\n"
_WITH_REPLY = 5  # words of MSG; HMSG has one more


class MessageParser(Parser):
    """Calls ``raw`` (by the number of the subscription) with its messages, in their order.

    Relies on nats-py's parser having ``buf``, ``state`` and ``needed``.
    """

    def __init__(self, client: Client, raw: Mapping[int, Deliver]) -> None:
        super().__init__(client)  # pyright: ignore[reportUnknownMemberType]
        self._raw = raw

    async def parse(self, data: bytes = b"") -> None:
        """Take in what the socket brought; a message may end in a later chunk."""
        if self.state == AWAITING_MSG_PAYLOAD:
            missing = self.needed + len(_LINE_END) - len(self.buf)
            await super().parse(data[:missing])
            data = data[missing:]
        elif self.buf:
            data = bytes(self.buf) + data
            self.buf.clear()
        if rest := data[self._deliver(data) :]:
            await super().parse(rest)

    def _deliver(self, data: bytes) -> int:
        """Deliver the whole messages that ``data`` begins with; answers where they end."""
        at, size, raw = 0, len(data), self._raw
        deliver: Deliver | None = None
        together: list[Delivery] = []
        while (line_end := data.find(_LINE_END, at)) > 0:
            words = data[at:line_end].split(b" ")
            has_headers = words[0] == b"HMSG"
            if not has_headers and words[0] != b"MSG":
                break
            begin = line_end + 2
            try:
                end = begin + int(words[-1])
                body = begin + int(words[-2]) if has_headers else begin
                listener = raw.get(int(words[2]))
            except (ValueError, IndexError):
                break  # nats-py's parser says what is wrong with it
            if listener is None or end + 2 > size:
                break
            if listener is not deliver:
                if deliver is not None:
                    deliver(together)
                deliver, together = listener, []
            reply = words[3] if len(words) == _WITH_REPLY + has_headers else b""
            together.append((words[1], reply, data[begin:body], data[body:end]))
            at = end + 2
        if deliver is not None:
            deliver(together)
        return at
