"""Decides whether an answer about the log may be believed: only from a leader with a quorum.

In a cluster a leader that is cut off goes on answering with its old state, and a group without a
leader answers with local state (DESIGN §3, "Who may be believed"). Here each answer to STREAM.INFO
is judged: it counts when a leader gave it that has lately heard a majority of the replicas, and
when it names no sequence below one that is known already. An election takes at least four seconds,
so a leader that heard a majority within `ACTIVE_S` is still the only one.
"""

import time
from collections.abc import Callable

import msgspec

from streams.jetstream.topology import Ask, ClusterInfo, InfoAnswer, info_of
from streams.log import LogUnavailable

ACTIVE_S = 2.5


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long something may be missing or in doubt, in seconds.

    ``doubt_s``: how long a head below a known sequence is asked again, longer than an election;
    after it the log is another, shorter one. ``search_s``: how long answers may be refused or
    missing before other servers are asked; longer than `ACTIVE_S`, so that no other one is believed
    that has just been cut off. ``ping_s``: within which a server answers a PING. ``owed_s``: how
    long a tail may take to bring a sequence that the log is known to have. ``another_s``: after
    how long a silence a page is asked of another replica as well; ``page_s``: how long all that
    were asked may send nothing; ``learned_s``: for how long the time that a page took counts.
    ``silence_s``: how long a consumer that reads ahead may send nothing. ``lag_waits_s``: the waits
    between tries while replicas do not have all of a plan. ``unused_s``: after which a read-ahead
    ends.
    """

    doubt_s: float = 10.0
    search_s: float = 3.0
    ping_s: float = 3.0
    owed_s: float = 1.0
    another_s: float = 0.3
    page_s: float = 5.0
    learned_s: float = 10.0
    silence_s: float = 1.0
    lag_waits_s: tuple[float, ...] = (0.0, 0.05, 0.2, 0.5, 1.0, 1.0, 1.0, 1.0)
    unused_s: float = 2.0


PATIENCE = Patience()


def doubt(cluster: ClusterInfo | None) -> str | None:
    """Why an answer with this description of its group counts for nothing; None if it counts."""
    if cluster is None:
        return None  # a server without a cluster
    if not cluster.leader:
        return "the stream has no leader"
    members = len(cluster.replicas) + 1
    heard = 1 + sum(
        silent_s is not None and silent_s < ACTIVE_S
        for silent_s in (each.silent_s for each in cluster.replicas)
    )
    if heard <= members // 2:
        return f"the stream's leader {cluster.leader} hears {heard} of {members} replicas"
    return None


async def proven_info(ask: Ask, stream: str) -> InfoAnswer:
    """How a stream is, by a leader with a quorum. Raises LogReset, LogUnavailable."""
    info = await info_of(ask, stream)
    if reason := doubt(info.cluster):
        raise LogUnavailable(f"stream {stream} is not certain: {reason}")
    return info


class Leadership:
    """What is known of the log's leader; ``on_doubt`` is called when an answer does not count."""

    def __init__(self, on_doubt: Callable[[], None], patience: Patience = PATIENCE) -> None:
        self.named = 0  # the highest sequence that the leader has acknowledged or named
        self.alone = False  # whether the stream has one replica, which cannot lag
        self.trouble: str | None = None  # why the last answer did not count
        self._on_doubt = on_doubt
        self._patience = patience
        self._shorter_since: float | None = None
        self._created = ""  # when the stream was made: another time is another log

    def names(self, sequence: int) -> None:
        """Note that the leader has acknowledged or named ``sequence``."""
        self.named = max(self.named, sequence)

    def judge(self, info: InfoAnswer, known: int) -> None:
        """Take in an answer; ``known`` is what `named` was when it was asked for.

        Raises LogUnavailable when the answer does not count.
        """
        another = self._created not in ("", info.created)
        reason = doubt(info.cluster)
        if reason is None and not another:
            reason = self._too_short(info.state.last_seq, known)
        if reason is not None:
            self.missed(reason)
            raise LogUnavailable(f"the log is not certain: {reason}")
        self.alone = info.cluster is None or not info.cluster.replicas
        self.trouble = None
        if another:
            self.named = 0  # another log, which has its own sequences
        self._created = info.created
        self.names(info.state.last_seq)

    def missed(self, reason: str) -> None:
        """Note that an answer did not come or did not count."""
        self.trouble = reason
        self._on_doubt()

    def _too_short(self, head: int, known: int) -> str | None:
        """Whether ``head`` is a question: it lies below a sequence that is known."""
        if head >= known:
            self._shorter_since = None
            return None
        now = time.monotonic()
        if self._shorter_since is None:
            self._shorter_since = now
        if now - self._shorter_since >= self._patience.doubt_s:
            self.named = head  # certain by now: it is a shorter log
            return None
        return f"the leader names sequence {head}, below {known}"
