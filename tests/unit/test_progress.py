"""Progress is gathered without loss, in pieces that fit, and bounded."""

from typing import Any

import msgspec
from msgspec import Raw

from holdfast_worker.progress import PIECE_CHARACTERS, Channel, PendingProgress, Piece
from holdfast_worker.task import PROGRESS_BYTES


def sent(pending: PendingProgress) -> list[dict[str, Any]]:
    """Everything that waits, as a watcher gets it."""
    found: list[dict[str, Any]] = []
    while (data := pending.take()) is not None:
        pending.settle(stored=True)
        assert len(data) <= PROGRESS_BYTES
        found.append(msgspec.json.decode(data))
    assert not pending
    return found


def joined(pieces: list[dict[str, Any]], channel: Channel) -> str:
    """The channel's text; every piece begins where the one before it ended."""
    text = ""
    for piece in pieces:
        if channel in piece:
            assert piece["offset"] == len(text)
            text += piece[channel]
    return text


def test_pieces_are_joined_and_their_offsets_have_no_hole() -> None:
    pending = PendingProgress()
    for number in range(20):
        pending.add(Piece(f"w{number} "))
    first = pending.take()
    pending.settle(stored=True)
    pending.add(Piece("☃𝄞"))
    assert first is not None
    pieces = [msgspec.json.decode(first), *sent(pending)]
    assert len(pieces) == 2
    assert joined(pieces, "text") == "".join(f"w{number} " for number in range(20)) + "☃𝄞"


def test_a_text_that_comes_at_once_is_sent_in_pieces_that_fit() -> None:
    pending = PendingProgress()
    text = "\x01" * (3 * PIECE_CHARACTERS + 1)  # six bytes of JSON each
    pending.add(Piece(text))
    pieces = sent(pending)
    assert len(pieces) == 4
    assert joined(pieces, "text") == text


def test_channels_keep_their_order_and_count_for_themselves() -> None:
    pending = PendingProgress()
    for piece in (Piece("hm", "reasoning"), Piece("a"), Piece("oh", "reasoning"), Piece("b")):
        pending.add(piece)
    pieces = sent(pending)
    assert [[*piece][1] for piece in pieces] == ["reasoning", "text", "reasoning", "text"]
    assert (joined(pieces, "reasoning"), joined(pieces, "text")) == ("hmoh", "ab")


def test_what_was_not_stored_is_sent_again() -> None:
    pending = PendingProgress()
    pending.add(Piece("a"))
    lost = pending.take()
    pending.add(Piece("b"))
    pending.settle(stored=False)
    assert lost is not None
    assert joined(sent(pending), "text") == "ab"


def test_of_other_progress_the_newest_is_sent_and_neither_kind_waits_for_the_other() -> None:
    pending = PendingProgress()
    for number in range(3):
        pending.add(Raw(b'{"n":%d}' % number))
        pending.add(Piece("x"))
    both = [pending.take()]
    pending.add(Piece("y"))
    both.append(pending.take())
    assert both == [Raw(b'{"offset":0,"text":"xxx"}'), Raw(b'{"n":2}')]
    unsent = PendingProgress()
    unsent.add(Raw(b"1"))
    unsent.take()
    unsent.add(Raw(b"2"))
    unsent.settle(stored=False)
    assert sent(unsent) == [2]


def test_text_is_bounded_and_the_hole_can_be_seen() -> None:
    pending = PendingProgress(most_characters=2 * PIECE_CHARACTERS)
    for letter in "abc":
        pending.add(Piece(letter * PIECE_CHARACTERS))
    pieces = sent(pending)
    assert [piece["offset"] for piece in pieces] == [PIECE_CHARACTERS, 2 * PIECE_CHARACTERS]
