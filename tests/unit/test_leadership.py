"""Which answers about the log count, and when another server is tried."""

import pytest

from streams.jetstream.leadership import Leadership, Patience, doubt
from streams.jetstream.topology import ClusterInfo, InfoAnswer, ReplicaInfo, StreamExtent
from streams.log import LogUnavailable

NOW, LONG_AGO = 300_000_000, 3_000_000_000
NEVER = ReplicaInfo(0, "n3", current=False, lag=3_156)  # a dead node, as a new leader shows it
JUST_NOW = ReplicaInfo(0, "n3", current=True)


def group(*active: int | ReplicaInfo, leader: str = "n1") -> ClusterInfo:
    replicas = (ReplicaInfo(each) if isinstance(each, int) else each for each in active)
    return ClusterInfo(leader, tuple(replicas))


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
        (group(NOW, NEVER), None),
        (group(LONG_AGO, NEVER), "hears 1 of 3"),
        (group(LONG_AGO, JUST_NOW), None),
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


def leadership(doubt_s: float = 10.0) -> Leadership:
    return Leadership(lambda: None, Patience(doubt_s=doubt_s))


def test_a_head_below_a_known_sequence_is_a_question() -> None:
    known = leadership()
    known.judge(answer(10), known=0)
    known.names(12)
    with pytest.raises(LogUnavailable, match="sequence 11, below 12"):
        known.judge(answer(11), known=12)
    known.judge(answer(11), known=11)  # 12 was acknowledged after this was asked
    known.judge(answer(12), known=12)
    assert known.named == 12


def test_a_head_that_stays_below_a_known_sequence_is_at_last_believed() -> None:
    known = leadership(doubt_s=0.0)
    known.names(12)
    known.judge(answer(3), known=12)
    assert known.named == 3


def test_a_stream_that_was_made_anew_has_its_own_sequences() -> None:
    known = leadership()
    known.judge(answer(10), known=0)
    known.judge(answer(2, created="later"), known=10)
    assert known.named == 2


def test_each_answer_that_does_not_count_begins_a_search_and_one_that_counts_ends_the_doubt() -> (
    None
):
    doubts: list[str | None] = []
    known = Leadership(lambda: doubts.append(known.trouble))
    with pytest.raises(LogUnavailable):
        known.judge(answer(5, group(NOW, NOW, leader="")), known=0)
    known.missed("no answer")
    assert doubts == ["the stream has no leader", "no answer"]
    known.judge(answer(5), known=0)
    assert known.trouble is None
    assert len(doubts) == 2
