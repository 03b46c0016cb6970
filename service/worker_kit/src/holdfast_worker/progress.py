"""Progress that an attempt has shown and that is not in the log yet.

Texts are gathered in order and without loss: each piece says on which channel and at which offset
it continues, so a watcher that joins the pieces of a channel has the whole text, and can drop a
piece that trouble with the log made arrive twice. Of any other progress only the newest is kept.
"""

from collections import deque
from typing import Literal

import msgspec
from msgspec import Raw

Channel = Literal["text", "reasoning", "refusal"]


class Piece(msgspec.Struct, frozen=True):
    """Text that continues what was shown before on the same channel."""

    text: str
    channel: Channel = "text"


Shown = Piece | Raw
"""What a handler shows: a piece of a growing text, or any JSON."""

PIECE_CHARACTERS = 10_000  # at most 60,000 bytes of JSON, whatever the characters are
PENDING_CHARACTERS = 1024 * 1024


class _Run:
    """Neighbouring pieces of one channel, to be sent as one."""

    def __init__(self, channel: Channel, offset: int) -> None:
        self.channel: Channel = channel
        self.offset = offset
        self.length = 0
        self._parts: list[str] = []

    def add(self, text: str) -> None:
        self._parts.append(text)
        self.length += len(text)

    def encoded(self) -> Raw:
        """``{"offset": characters before it, "<channel>": its text}``."""
        text = "".join(self._parts)
        return Raw(msgspec.json.encode({"offset": self.offset, self.channel: text}))


class PendingProgress:
    """What is to be sent next; not thread-safe, its lease's lock guards it.

    More than ``most_characters`` are not kept: the oldest text goes, and the offset of the next
    shows how much is missing.
    """

    def __init__(self, most_characters: int = PENDING_CHARACTERS) -> None:
        self._most = most_characters
        self._runs: deque[_Run] = deque()
        self._waiting = 0
        self._offsets: dict[Channel, int] = {}
        self._newest: Raw | None = None
        self._sending: _Run | Raw | None = None
        self._sent_text = False

    def __bool__(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._runs) or self._newest is not None

    def add(self, shown: Shown) -> None:
        """Keep what a handler showed."""
        if not isinstance(shown, Piece):
            self._newest = shown
            return
        for first in range(0, len(shown.text), PIECE_CHARACTERS):
            self._append(shown.channel, shown.text[first : first + PIECE_CHARACTERS])
        while self._waiting > self._most:
            self._waiting -= self._runs.popleft().length

    def take(self) -> Raw | None:
        """The next progress to send, to be followed by `settle`; None: there is none."""
        # In turns, so that neither texts nor other progress can hold up the other.
        if self._runs and (self._newest is None or not self._sent_text):
            self._sending = run = self._runs.popleft()
            self._waiting -= run.length
            self._sent_text = True
            return run.encoded()
        self._sending, self._newest = self._newest, None
        self._sent_text = False
        return self._sending

    def settle(self, *, stored: bool) -> None:
        """What was taken is in the log, or has to be sent again."""
        sent, self._sending = self._sending, None
        if stored or sent is None:
            return
        if isinstance(sent, _Run):
            self._runs.appendleft(sent)
            self._waiting += sent.length
        elif self._newest is None:
            self._newest = sent

    def _append(self, channel: Channel, text: str) -> None:
        run = self._runs[-1] if self._runs else None
        offset = self._offsets.get(channel, 0)
        joins = run is not None and run.channel == channel
        if run is None or not joins or run.length + len(text) > PIECE_CHARACTERS:
            run = _Run(channel, offset)
            self._runs.append(run)
        run.add(text)
        self._offsets[channel] = offset + len(text)
        self._waiting += len(text)
