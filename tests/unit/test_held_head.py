"""The head of an answer leaves together with what follows it, and is never lost or late."""

import asyncio
from typing import Any, cast

from service.http.held_head import HeldHead


class Sent:
    """A transport that remembers its writes."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.writes.append(data)

    def writelines(self, data: Any) -> None:
        self.writes.extend(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def held(sent: Sent) -> HeldHead:
    return HeldHead(cast("asyncio.Transport", sent), asyncio.get_running_loop())


async def test_head_and_body_are_one_write_and_later_parts_their_own() -> None:
    sent = Sent()
    answer = held(sent)
    answer.write(b"head ")
    assert sent.writes == []
    answer.write(b"body")
    answer.write(b"more")
    await asyncio.sleep(0)
    assert sent.writes == [b"head body", b"more"]


async def test_a_head_that_nothing_follows_is_sent_in_the_next_turn() -> None:
    sent = Sent()
    held(sent).write(b"head")
    await asyncio.sleep(0)
    assert sent.writes == [b"head"]


async def test_a_head_is_sent_before_what_takes_another_way() -> None:
    sent = Sent()
    answer = held(sent)
    answer.write(b"head")
    answer.writelines((b"a", b"b"))
    assert sent.writes == [b"head", b"a", b"b"]


async def test_closing_sends_the_head_first() -> None:
    sent = Sent()
    answer = held(sent)
    answer.write(b"head")
    answer.close()
    assert (sent.writes, sent.closed, answer.is_closing()) == ([b"head"], True, True)


async def test_nothing_is_sent_on_a_connection_that_was_closed_meanwhile() -> None:
    sent = Sent()
    held(sent).write(b"head")
    sent.close()
    await asyncio.sleep(0)
    assert sent.writes == []
