"""Several instances share the queue without fighting over its head, and no share starves."""

import random
from typing import Any

import pytest

from projections.board.lanes import YIELD_S
from projections.board.peers import Peers
from streams.log import BadFact
from streams.plan.events import Submitted
from tests.unit.board_story import Yard, names
from tests.unit.plan_story import task

THREE = 3


def introduce(place: Yard) -> None:
    """Every instance claims an echo, so that each knows the others as peers for that kind."""
    for index in range(len(place.boards)):
        place.submit(f"hello-{index}", task(f"hello-{index}"))
        place.later(0.2)
        place.complete(*place.claim(1, kinds=("echo",), board=index))


def mine(peers: Peers, *task: Any) -> bool:
    return peers.ahead(*task)[0] == 0


def backlog(place: Yard, tasks: int) -> None:
    place.submit("load", *(task(f"t{n}") for n in range(tasks)))


def test_three_boards_that_race_lose_fewer_than_a_tenth_of_their_claims() -> None:
    place, dice = Yard(boards=THREE), random.Random(7)
    introduce(place)
    backlog(place, 600)
    won = 0
    while won < 600:
        # All pick before any claim is folded anywhere: the worst case.
        racing = [(index, place.start_claims(10, board=index)) for index in range(THREE)]
        dice.shuffle(racing)
        for index, claims in racing:
            won += len(place.end_claims(claims, index))
        place.later(0.02)
        assert place.at < 1_100
    assert won == 600
    assert place.conflicts < 60


def test_without_the_partition_they_would_fight() -> None:
    """The measure above can fail: with every task everyone's own, most claims are lost."""
    place = Yard(boards=THREE)
    backlog(place, 90)
    racing = [(index, place.start_claims(10, board=index)) for index in range(THREE)]
    for index, claims in racing:
        place.end_claims(claims, index)
    assert place.conflicts == 20


def test_every_task_belongs_to_exactly_one_peer() -> None:
    everyone = [Peers(name) for name in "abc"]
    for peers in everyone:
        for name in "abc":
            peers.saw(name, "echo", 0)
    for turn in range(4):
        for n in range(200):
            assert sum(mine(peers, "echo", "p", f"t{n}", turn) for peers in everyone) == 1


def test_alone_everything_is_mine() -> None:
    assert all(mine(Peers("a"), "echo", "p", f"t{n}", 0) for n in range(50))


def test_what_belongs_to_a_peer_is_left_to_it_for_a_moment_only() -> None:
    place = Yard(boards=THREE)
    introduce(place)
    backlog(place, 30)
    taken = len(place.pick(30))
    assert 0 < taken < 30
    for _ in range(2):  # what it helps first with, and what another one may help with before
        due = place.board.places.next_due()
        assert due is not None
        assert place.at < due <= place.at + 0.15
        place.at = due
        place.board.places.lanes.looks_at_all()
        taken += len(place.pick(30))
    assert taken == 30


def test_two_that_help_a_third_do_not_take_the_same_tasks() -> None:
    place = Yard(boards=THREE)
    introduce(place)
    backlog(place, 90)
    for index in range(THREE):
        place.pick(90, board=index)  # what is its own
    place.later(YIELD_S * 1.1)
    helped = [set(names(place.pick(90, board=index))) for index in range(THREE)]
    assert all(helped)
    assert sum(map(len, helped)) == len(set.union(*helped))


def test_a_kind_that_is_asked_for_later_does_not_hide_when_to_look_again() -> None:
    place = Yard(boards=THREE)
    introduce(place)
    backlog(place, 30)
    place.pick(30)
    due = place.board.places.next_due()
    assert place.pick(1, kinds=("other",)) == []
    assert place.board.places.next_due() == due


def test_nothing_starves_when_a_peer_dies() -> None:
    place = Yard(boards=THREE)
    introduce(place)
    backlog(place, 300)
    taken: list[str] = []
    while len(taken) < 300:
        for index in (0, 1):  # the third is dead
            taken += names(place.claim(5, board=index))
        place.later(0.05)
        assert place.at < 1_030, f"{300 - len(taken)} tasks starve"
    assert len(set(taken)) == 300


@pytest.mark.parametrize("slots", [1, 4])
def test_nothing_starves_behind_a_steady_stream_when_its_peer_does_not_want_it(slots: int) -> None:
    """Only this instance's workers do the rare kind, but some of it hashes to the others."""
    place = Yard(boards=THREE)
    introduce(place)
    place.submit("old", *(task(f"old-{n}", kind="rare") for n in range(6)))
    left = {f"old-{n}" for n in range(6)}
    for step in range(400):
        fresh = Submitted(tasks=tuple(task(f"n{n}") for n in range(4 * slots)))
        place.write(f"fresh-{step}", None, fresh)
        left -= set(names(place.claim(slots, kinds=("echo", "rare"))))
        for index in (1, 2):
            place.claim(2 * slots, kinds=("echo",), board=index)
        place.later(0.02)
    assert not left


def test_a_peer_that_is_silent_for_long_is_no_peer() -> None:
    place = Yard(boards=2)
    introduce(place)
    place.later(Peers.SILENT_S + 1)
    place.board.peers.forget_silent(place.at)
    backlog(place, 20)
    assert len(place.pick(20)) == 20


def test_a_peer_is_forgotten_when_others_claim_and_it_does_not() -> None:
    peers = Peers("a")
    peers.saw("b", "echo", 0)
    peers.forget_silent(Peers.WINDOW_S + 5)
    assert not all(mine(peers, "echo", "p", f"t{n}", 0) for n in range(50)), "nothing was claimed"
    peers.saw("a", "echo", Peers.WINDOW_S + 6)
    peers.forget_silent(Peers.WINDOW_S + 7)
    assert all(mine(peers, "echo", "p", f"t{n}", 0) for n in range(50))


def test_what_belongs_to_a_peer_is_left_to_it_for_longer_while_claims_are_slow() -> None:
    place = Yard(boards=THREE)
    introduce(place)
    place.board.places.lanes.took(0.2)
    backlog(place, 30)
    own = len(place.pick(30))
    place.later(0.3)
    assert not place.pick(30)
    place.later(0.6)
    helped = len(place.pick(30))
    assert 0 < helped < 30 - own
    for _ in range(200):
        place.board.places.lanes.took(0.001)
    assert place.board.places.lanes.yield_s == YIELD_S


def test_boards_that_fold_the_same_facts_hold_the_same() -> None:
    place = Yard(boards=2)
    place.submit("p", *(task(f"t{n}") for n in range(5)))
    place.claim(3, board=1)
    assert not any(isinstance(fact, BadFact) for fact in place.log)
    assert place.boards[0].places.backlog() == place.boards[1].places.backlog()
    assert place.boards[0].sequence == place.boards[1].sequence == 4


def test_an_instance_is_a_peer_only_for_kinds_that_it_claims() -> None:
    """Else a third of the tasks would wait for an instance that never asks for them."""
    place = Yard(boards=THREE)
    place.submit("other", *(task(f"o{n}", kind="other") for n in range(9)))
    place.claim(1, kinds=("other",), board=2)
    backlog(place, 30)
    assert len(place.pick(30, kinds=("echo",))) == 30
    assert len(place.pick(8, kinds=("other",))) < 8, "what is its turn is left to the peer"


def test_a_peer_for_a_seldom_kind_stays_one_while_it_claims_other_kinds() -> None:
    peers = Peers("a")
    peers.saw("b", "seldom", 0)
    for second in range(0, 200, 5):
        peers.saw("b", "echo", second)
        peers.forget_silent(second)
    assert {mine(peers, "seldom", "p", f"t{n}", 0) for n in range(50)} == {True, False}
    peers.forget_silent(200 + Peers.SILENT_S)
    assert all(mine(peers, "seldom", "p", f"t{n}", 0) for n in range(50))
