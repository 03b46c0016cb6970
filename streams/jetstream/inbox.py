"""Receives answers: each question has a reply subject, and a future that its answer settles."""

import asyncio
from collections.abc import Callable, Sequence

from streams.jetstream.messages import Delivery, Lost, Reply


class Inbox:
    """The reply subjects below one prefix; lives on the loop that made it."""

    def __init__(self, prefix: bytes, why_silent: Callable[[float], str] = lambda _: "") -> None:
        """``why_silent`` adds to the reason when no answer came within so many seconds."""
        self._why_silent = why_silent
        self._prefix = prefix + b"."
        self._loop = asyncio.get_running_loop()
        self._asked = 0
        self._single: dict[bytes, asyncio.Future[Reply | Lost]] = {}
        self._many: dict[bytes, Callable[[Reply | Lost], None]] = {}

    @property
    def subject(self) -> str:
        """What to listen to for every answer."""
        return f"{self._prefix.decode()}*"

    def expect(self, timeout_s: float) -> tuple[bytes, asyncio.Future[Reply | Lost]]:
        """A reply subject of its own, and the answer to come there; Lost after ``timeout_s``."""
        token = self._token()
        answer: asyncio.Future[Reply | Lost] = self._loop.create_future()
        self._single[token] = answer
        timer = self._loop.call_later(timeout_s, self._give_up, token, timeout_s)
        answer.add_done_callback(lambda _: self._forget(token, timer))
        return self._prefix + token, answer

    def collect(self, on_reply: Callable[[Reply | Lost], None]) -> tuple[bytes, Callable[[], None]]:
        """A reply subject for many answers, and how to stop listening to it."""
        token = self._token()
        self._many[token] = on_reply

        def forget() -> None:
            self._many.pop(token, None)

        return self._prefix + token, forget

    def deliver(self, messages: Sequence[Delivery]) -> None:
        """Give each answer to the question that waits for it; see `Deliver`."""
        for subject, _, headers, payload in messages:
            self._answer(subject, Reply(headers, payload))

    def _answer(self, subject: bytes, reply: Reply) -> None:
        token = subject[len(self._prefix) :]
        waiting = self._single.get(token)
        if waiting is not None:
            if not waiting.done():
                waiting.set_result(reply)
            return
        collector = self._many.get(token)
        if collector is not None:
            collector(reply)

    def abandon(self, reason: str) -> None:
        """End every wait with Lost: on a socket that is gone no answer can come any more."""
        for waiting in list(self._single.values()):
            if not waiting.done():
                waiting.set_result(Lost(reason))
        for collector in list(self._many.values()):
            collector(Lost(reason))

    def _token(self) -> bytes:
        self._asked += 1
        return b"%x" % self._asked

    def _give_up(self, token: bytes, timeout_s: float) -> None:
        waiting = self._single.get(token)
        if waiting is not None and not waiting.done():
            why = self._why_silent(timeout_s)
            waiting.set_result(Lost(f"no answer within {timeout_s:g} s{why}"))

    def _forget(self, token: bytes, timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        self._single.pop(token, None)
