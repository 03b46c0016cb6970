"""Which replicas are named as late: from a leader's answers, second by second."""

from streams.jetstream.replicas import Replicas
from streams.jetstream.topology import (
    NANOSECONDS,
    ClusterInfo,
    InfoAnswer,
    ReplicaInfo,
    StreamExtent,
)


class Story:
    """A leader that answers twice a second, and which of its followers are named."""

    def __init__(self, per_s: float = 100.0) -> None:
        self.at = 1_000.0
        self._per_s = per_s
        self._begun = self.at
        self.replicas = Replicas(lambda: self.at)

    def goes_on(self, for_s: float, *followers: ReplicaInfo, stream: str = "PLANS") -> None:
        """The followers are so for this time."""
        until = self.at + for_s
        while self.at < until:
            self.at += 0.5
            head = int((self.at - self._begun) * self._per_s)
            group = ClusterInfo("n1", followers)
            self.replicas.seen(stream, InfoAnswer(state=StreamExtent(last_seq=head), cluster=group))

    @property
    def told(self) -> list[str]:
        return [str(each) for each in self.replicas.troubles()]


def heard(name: str, seconds: float = 0.2) -> ReplicaInfo:
    return ReplicaInfo(round(seconds * NANOSECONDS), name, current=True)


def silent(name: str, seconds: float, lag: int = 40) -> ReplicaInfo:
    return ReplicaInfo(round(seconds * NANOSECONDS), name, current=False, lag=lag)


def behind(name: str, lag: int) -> ReplicaInfo:
    return ReplicaInfo(round(0.02 * NANOSECONDS), name, current=False, lag=lag)


def never_heard(name: str) -> ReplicaInfo:
    return ReplicaInfo(0, name, current=False, lag=3_000)


def test_nothing_is_told_of_followers_that_are_heard() -> None:
    story = Story()
    story.goes_on(20, heard("n2", 1.1), heard("n3"))
    assert story.told == []


def test_a_stream_without_a_cluster_has_no_replicas() -> None:
    replicas = Replicas()
    replicas.seen("PLANS", InfoAnswer())
    assert replicas.troubles() == ()


def test_a_follower_that_is_not_heard_is_told_with_its_name_and_for_how_long() -> None:
    story = Story()
    story.goes_on(0.5, heard("n2"), silent("n3", 1.9))
    assert story.told == []
    story.goes_on(0.5, heard("n2"), silent("n3", 2.4))
    assert story.told == ["the leader of PLANS has not heard n3 for 2 s"]
    story.goes_on(0.5, heard("n2"), heard("n3"))
    assert story.told == []


def test_an_idle_stream_shows_a_silent_follower_too() -> None:
    story = Story(per_s=0)
    story.goes_on(0.5, heard("n2"), heard("n3", 2.4))  # it lacks nothing
    assert len(story.told) == 1


def test_a_follower_that_a_new_leader_has_never_heard_is_silent_since_its_election() -> None:
    story = Story()
    story.goes_on(1.5, heard("n2"), never_heard("n3"))
    assert story.told == []  # it may be about to answer the new leader
    story.goes_on(1.5, heard("n2"), never_heard("n3"))
    assert story.told == ["the leader of PLANS has not heard n3 for 2 s"]


def test_an_election_does_not_begin_the_time_anew() -> None:
    story = Story()
    story.goes_on(0.5, heard("n2"), silent("n3", 9.0))
    story.goes_on(0.5, heard("n1"), never_heard("n3"))
    assert story.told == ["the leader of PLANS has not heard n3 for 10 s"]


def test_a_follower_that_lacks_more_than_a_moment_s_entries_for_seconds_is_behind() -> None:
    story = Story()
    story.goes_on(3, heard("n2"), behind("n3", lag=400))
    assert story.told == []
    story.goes_on(1, heard("n2"), behind("n3", lag=400))
    assert story.told == ["n3 is 400 entries behind PLANS, for 4 s"]
    story.goes_on(0.5, heard("n2"), heard("n3"))
    assert story.told == []


def test_the_farther_of_two_healthy_followers_is_not_behind() -> None:
    story = Story()
    story.goes_on(30, heard("n2"), behind("n3", lag=5))
    assert story.told == []


def test_on_an_idle_stream_a_follower_that_lacks_anything_for_seconds_is_behind() -> None:
    story = Story(per_s=0)
    story.goes_on(4, heard("n2"), behind("n3", lag=1))
    assert len(story.told) == 1


def test_a_follower_that_catches_up_after_a_silence_is_told_without_a_break() -> None:
    story = Story()
    story.goes_on(0.5, heard("n2"), silent("n3", 20.0))
    story.goes_on(0.5, heard("n2"), behind("n3", lag=2_000))
    assert story.told == ["n3 is 2,000 entries behind PLANS, for 20 s"]


def test_each_stream_is_told_by_itself() -> None:
    story = Story()
    story.goes_on(0.5, heard("n2"), silent("n3", 4.0))
    story.goes_on(0.5, heard("n2"), silent("n3", 4.0), stream="AUDIT")
    assert [each.stream for each in story.replicas.troubles()] == ["PLANS", "AUDIT"]


def test_what_was_said_long_ago_is_not_told() -> None:
    story = Story()
    story.goes_on(0.5, heard("n2"), silent("n3", 4.0))
    story.at += 5.5
    assert story.told == []


def test_a_server_that_leaves_the_group_is_forgotten() -> None:
    story = Story()
    story.goes_on(0.5, heard("n2"), silent("n3", 4.0))
    story.goes_on(0.5, heard("n2"), heard("n4"))
    assert story.told == []
