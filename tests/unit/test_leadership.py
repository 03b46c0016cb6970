"""Which answers about the log count, and when another server is tried."""

from itertools import pairwise

import pytest

from streams.jetstream.leadership import Leadership, Patience, doubt
from streams.jetstream.topology import ClusterInfo, InfoAnswer, ReplicaInfo, StreamExtent
from streams.log import LogUnavailable

NOW, LONG_AGO = 300_000_000, 3_000_000_000


def group(*active: int, leader: str = "n1") -> ClusterInfo:
    return ClusterInfo(leader, tuple(ReplicaInfo(each) for each in active))


def answer(head: int, cluster: ClusterInfo | None = None, created: str = "then") -> InfoAnswer:
    return InfoAnswer(created=created, state=StreamExtent(last_seq=head), cluster=cluster)


@pytest.mark.parametrize(
    ("cluster", "why"),
    [
        (None, None),
        (group(), None),
        (group(NOW, NOW), None),
        (group(NOW, LONG_AGO), None),
        (group(LONG_AGO, LONG_AGO), "hears 1 of 3"),
        (group(LONG_AGO, LONG_AGO, NOW, NOW), None),
        (group(LONG_AGO, LONG_AGO, LONG_AGO, NOW), "hears 2 of 5"),
        (group(NOW, NOW, leader=""), "no leader"),
        (group(leader=""), "no leader"),
    ],
)
def test_only_a_leader_that_has_lately_heard_a_majority_is_believed(
    cluster: ClusterInfo | None, why: str | None
) -> None:
    found = doubt(cluster)
    assert found is None if why is None else why in (found or "")


def leadership(left: list[str], **patience: float) -> Leadership:
    return Leadership(left.append, Patience(**patience))


def test_a_head_below_a_known_sequence_is_a_question() -> None:
    known = leadership([])
    known.judge(answer(10), known=0)
    known.names(12)
    with pytest.raises(LogUnavailable, match="sequence 11, below 12"):
        known.judge(answer(11), known=12)
    known.judge(answer(11), known=11)  # 12 was acknowledged after this was asked
    known.judge(answer(12), known=12)
    assert known.named == 12


def test_a_head_that_stays_below_a_known_sequence_is_at_last_believed() -> None:
    known = leadership([], doubt_s=0.0)
    known.names(12)
    known.judge(answer(3), known=12)
    assert known.named == 3


def test_a_stream_that_was_made_anew_has_its_own_sequences() -> None:
    known = leadership([])
    known.judge(answer(10), known=0)
    known.judge(answer(2, created="later"), known=10)
    assert known.named == 2


def test_another_server_is_tried_after_a_while_without_an_answer_that_counts() -> None:
    left: list[str] = []
    known = leadership(left, leave_s=0.0, leave_most_s=0.0)
    for _ in range(2):
        with pytest.raises(LogUnavailable):
            known.judge(answer(5, group(NOW, NOW, leader="")), known=0)
    assert left == ["the stream has no leader"]
    patient = leadership(left, leave_s=60.0)
    for _ in range(5):
        patient.missed("no answer")
    assert len(left) == 1
    assert patient.trouble == "no answer"
    patient.judge(answer(5), known=0)
    assert patient.trouble is None


def test_the_server_that_is_tried_first_is_left_sooner_than_the_others() -> None:
    clock = 0.0
    left_at: list[float] = []
    known = Leadership(
        lambda _: left_at.append(clock), Patience(leave_s=4.0, leave_most_s=16.0), lambda: clock
    )
    while clock < 60:
        known.missed("no answer")
        clock += 0.5
    waits = [b - a for a, b in pairwise([0.0, *left_at])]
    assert waits == [4, 2, 4, 8, 16, 16]
    known.judge(answer(5), known=0)
    since, left = clock, len(left_at)
    while len(left_at) == left:
        known.missed("no answer")
        clock += 0.5
    assert left_at[-1] - since == 4


def test_a_leader_that_is_cut_off_is_left_at_once_and_only_once() -> None:
    left: list[str] = []
    known = leadership(left, leave_s=60.0, leave_cut_off_s=60.0)
    for _ in range(3):
        with pytest.raises(LogUnavailable):
            known.judge(answer(5, group(LONG_AGO, LONG_AGO)), known=0)
    assert left == ["the stream's leader n1 hears 1 of 3 replicas"]
