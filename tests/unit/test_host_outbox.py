"""What a worker host sends: no frame is lost or late, and those of one moment go together."""

import socket
from collections.abc import Iterator
from threading import Thread

import pytest

from service.executor.hosts.outbox import Outbox
from service.executor.running.frames import FrameReader
from service.executor.running.messages import HostPing, KnownSecrets, ToHost

FRAME_BYTES = 10_000
READ_BYTES = 100_000


@pytest.fixture
def wire() -> Iterator[tuple[Outbox, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(0.2)
    with ours, theirs:
        yield Outbox(ours, FRAME_BYTES), theirs


def read(theirs: socket.socket) -> int:
    """How many messages one read gives."""
    return len(FrameReader(ToHost, FRAME_BYTES).feed(theirs.recv(READ_BYTES)))


def send_and_fail(outbox: Outbox) -> None:
    with outbox.together():
        outbox.send(HostPing())
        raise ValueError("broken")


def test_what_any_thread_sends_in_a_block_crosses_in_one_write(
    wire: tuple[Outbox, socket.socket],
) -> None:
    outbox, theirs = wire
    with outbox.together():
        outbox.send(HostPing())
        thread = Thread(target=outbox.send, args=(HostPing(), KnownSecrets(())))
        thread.start()
        thread.join()
        with pytest.raises(TimeoutError):
            read(theirs)
    assert read(theirs) == 3
    outbox.send(HostPing())
    assert read(theirs) == 1, "what is sent after it goes at once"


def test_a_block_that_fails_keeps_nothing_back(wire: tuple[Outbox, socket.socket]) -> None:
    outbox, theirs = wire
    with pytest.raises(ValueError, match="broken"):
        send_and_fail(outbox)
    assert read(theirs) == 1


def test_a_block_inside_a_write_of_another_leaves_it_to_that_one(
    wire: tuple[Outbox, socket.socket],
) -> None:
    outbox, theirs = wire
    with outbox.together():
        with outbox.together():
            outbox.send(HostPing())
        with pytest.raises(TimeoutError):
            read(theirs)
    assert read(theirs) == 1
