"""The short way through NATS' protocol delivers what nats-py's parser does, however it comes."""

import asyncio
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from nats.protocol.parser import Parser

from streams.jetstream.messages import Delivery
from streams.jetstream.parser import MessageParser

RAW, OTHER = 7, 8  # subscriptions: one of raw deliveries, one of nats-py's


class Heard:
    """Stands in for the client: notes what a parser calls."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def deliver(self, messages: Sequence[Delivery]) -> None:
        for subject, reply, headers, payload in messages:
            self.said.append((RAW, subject, reply, payload, headers))

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, payload: bytes, headers: bytes | None
    ) -> None:
        self.said.append((sid, subject, reply, payload, headers or b""))

    async def _process_ping(self) -> None:
        self.said.append(("ping",))

    async def _process_pong(self) -> None:
        self.said.append(("pong",))

    async def _process_err(self, error: str) -> None:
        self.said.append(("error", error))

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.said.append(("info", info))


payloads = st.sampled_from([b"", b"x", b"\r\n", b"MSG a 7 1\r\nx\r\n", b'{"a": 1}', b"y" * 500])
heads = st.sampled_from([b"NATS/1.0\r\n\r\n", b"NATS/1.0 100\r\n\r\n", b"NATS/1.0\r\nA: b\r\n\r\n"])
replies = st.sampled_from([b"", b" $JS.ACK.PLANS.tail.1.2.3.4.5", b" _INBOX.a.b"])
sids = st.sampled_from([RAW, RAW, RAW, OTHER])


def plain(sid: int, reply: bytes, payload: bytes) -> bytes:
    return b"MSG plans.p.t %d%b %d\r\n%b\r\n" % (sid, reply, len(payload), payload)


def with_headers(sid: int, reply: bytes, head: bytes, payload: bytes) -> bytes:
    size = len(head) + len(payload)
    return b"HMSG plans.p %d%b %d %d\r\n%b%b\r\n" % (sid, reply, len(head), size, head, payload)


said = st.lists(
    st.one_of(
        st.builds(plain, sids, replies, payloads),
        st.builds(with_headers, sids, replies, heads, payloads),
        st.sampled_from([
            b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'No'\r\n", b'INFO {"a":1}\r\n',
            b"MSG  odd   7  1\r\nx\r\n",
        ]),
    ),
    max_size=12,
)  # fmt: skip
cuts = st.lists(st.integers(1, 90), max_size=60)


async def heard(parser: Parser, stream: bytes, sizes: list[int]) -> None:
    at = 0
    for size in [*sizes, len(stream)]:
        if chunk := stream[at : at + size]:
            await parser.parse(chunk)
        at += size


@given(said=said, sizes=cuts)
def test_whatever_the_chunks_are_all_is_delivered_once_and_in_order(
    said: list[bytes], sizes: list[int]
) -> None:
    ours, theirs = Heard(), Heard()
    stream = b"".join(said)
    quick = MessageParser(ours, {RAW: ours.deliver})  # type: ignore[arg-type]
    asyncio.run(heard(quick, stream, sizes))
    asyncio.run(heard(Parser(theirs), stream, [len(stream)]))
    assert ours.said == theirs.said
    assert not quick.buf
