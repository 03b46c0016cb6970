"""A page of messages by direct get, from the first replica that sends all of it.

NATS spreads direct gets over all replicas, also over one that is frozen or cut off and never
answers. So another one is asked while nothing arrives, and the first is still listened to.
"""

import asyncio
import time
from asyncio import FIRST_COMPLETED, Future
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from math import inf

import msgspec

from streams.codec import split_headers
from streams.jetstream.connection import Connection
from streams.jetstream.leadership import PATIENCE, Patience
from streams.jetstream.messages import Lost, Reply, render
from streams.log import LogUnavailable

REPLICAS_ASKED = 4  # one after the other, for one page


class DirectGetPage(msgspec.Struct, frozen=True):
    """What one direct get brought; ``more`` says that the filter matches further messages."""

    replies: list[Reply]
    more: bool


class DirectGets:
    """Asks one stream for pages; raises LogUnavailable and nothing else."""

    def __init__(self, connection: Connection, stream: str, patience: Patience = PATIENCE) -> None:
        self._connection = connection
        self._subject = connection.names.api(f"DIRECT.GET.{stream}").encode()
        self._patience = patience
        self._took_s = 0.0  # the last page
        self._ended_at = -inf

    async def page(self, question: dict[str, object]) -> DirectGetPage:
        """What ``question`` brings, within `Patience.page_s` of the last sign of any replica."""
        body = msgspec.json.encode(question)
        try:
            with ExitStack() as stack:
                asked: list[_Asked] = []
                while len(asked) < REPLICAS_ASKED:
                    asked.append(stack.enter_context(self._asked(body)))
                    last = len(asked) == REPLICAS_ASKED
                    silence_s = self._patience.page_s if last else self._another_s
                    if (first := await _first_ended(asked, silence_s)) is not None:
                        return self._page_of(first)
        except ConnectionError as error:
            raise LogUnavailable(f"the log cannot be read: {error}") from error
        silence_s = self._patience.page_s
        why = self._connection.refusal_within(silence_s)
        raise LogUnavailable(f"the log cannot be read: nothing arrived for {silence_s:g} s{why}")

    @property
    def _another_s(self) -> float:
        """After how long a silence another replica is asked.

        Behind a slow link all answer late: then the next pages wait as long as this one took.
        """
        patience = self._patience
        if time.monotonic() - self._ended_at > patience.learned_s:
            return patience.another_s
        return min(max(patience.another_s, 2 * self._took_s), patience.page_s)

    @contextmanager
    def _asked(self, body: bytes) -> Generator["_Asked"]:
        asked = _Asked()
        inbox, forget = self._connection.collect(asked.hear)
        try:
            self._connection.send(render(self._subject, inbox, b"", body))
            yield asked
        finally:
            forget()

    def _page_of(self, asked: "_Asked") -> DirectGetPage:
        self._ended_at = time.monotonic()
        self._took_s = self._ended_at - asked.at
        return DirectGetPage(asked.replies, _more(asked.ended.result()))


class _Asked:
    """One question on its way: what has arrived, and the reply that ends the page."""

    __slots__ = ("at", "ended", "replies")

    def __init__(self) -> None:
        self.at = time.monotonic()
        self.replies: list[Reply] = []
        self.ended: Future[Reply | Lost] = asyncio.get_running_loop().create_future()

    def hear(self, reply: Reply | Lost) -> None:
        if isinstance(reply, Reply) and not reply.status:
            self.replies.append(reply)
        elif not self.ended.done():
            self.ended.set_result(reply)


async def _first_ended(asked: Sequence[_Asked], silence_s: float) -> _Asked | None:
    """The first that is whole; None when nothing has arrived for ``silence_s``."""
    seen = -1
    while (arrived := sum(len(each.replies) for each in asked)) != seen:
        seen = arrived
        waiting = [each.ended for each in asked]
        await asyncio.wait(waiting, timeout=silence_s, return_when=FIRST_COMPLETED)
        for each in asked:
            if each.ended.done():
                return each
    return None


def _more(end: Reply | Lost) -> bool:
    """Whether messages follow, from the status that ends a page; raises LogUnavailable."""
    match end:
        case Reply() if end.status == b"204":
            return split_headers(end.headers).get(b"Nats-Num-Pending", b"0") != b"0"
        case Reply() if end.status == b"404":
            return False
        case Reply():
            line = end.headers.split(b"\r\n", 1)[0].decode("utf-8", "replace")
            raise LogUnavailable(f"the log cannot be read: {line}")
        case Lost(reason):
            raise LogUnavailable(f"the log cannot be read: {reason}")
