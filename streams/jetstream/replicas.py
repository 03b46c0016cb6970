"""Notes which replicas do not keep up with their stream, from what its leader says in STREAM.INFO.

Only answers that are asked for anyway, and that count (`streams.jetstream.leadership`), are looked
at. A follower is silent when its leader has not heard it for `SILENT_S`; a leader hears each once a
second. It is behind when it lacks more than what was written in the last `BEHIND_S`, in every
answer for `LASTS_S`: where much is written, the farther of two healthy followers always lacks some
entries. Entries may hold several messages, so this errs towards calling it current.
"""

import time
from collections import deque
from collections.abc import Callable

import msgspec

from streams.jetstream.topology import InfoAnswer, ReplicaInfo
from streams.log import ReplicaTrouble

SILENT_S = 2.0
LASTS_S = 3.0
BEHIND_S = 0.25
PERIOD_S = 0.4  # answers that come sooner after each other add nothing
HEADS = 8  # from which it is known how much is written
KNOWN_S = 5.0  # for how long an answer says how the replicas are


class _Late(msgspec.Struct):
    """A replica that was not heard, or was behind, in every answer since ``since``."""

    since: float
    silent: bool = False
    lag: int = 0


class _Group:
    """The replicas of one stream."""

    def __init__(self) -> None:
        self.heads: deque[tuple[float, int]] = deque(maxlen=HEADS)
        self.late: dict[str, _Late] = {}

    @property
    def seen_at(self) -> float:
        return self.heads[-1][0] if self.heads else float("-inf")

    def lately(self) -> float:
        """How many messages were written within `BEHIND_S`."""
        (since, first), (until, last) = self.heads[0], self.heads[-1]
        return BEHIND_S * max(last - first, 0) / (until - since) if until > since else 0.0


class Replicas:
    """Every stream's replicas, as their leaders described them last."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._groups: dict[str, _Group] = {}

    def seen(self, stream: str, info: InfoAnswer) -> None:
        """Take in an answer that counts."""
        now, group = self._monotonic(), self._groups.setdefault(stream, _Group())
        if now - group.seen_at < PERIOD_S:
            return
        group.heads.append((now, info.state.last_seq))
        before, group.late = group.late, {}
        lately = group.lately()
        for each in info.cluster.replicas if info.cluster else ():
            if (late := _late(each, now, lately)) is not None:
                if (known := before.get(each.name)) is not None:
                    late.since = min(known.since, late.since)
                group.late[each.name] = late

    def troubles(self) -> tuple[ReplicaTrouble, ...]:
        """The replicas that are silent or behind, for long enough to be told."""
        now = self._monotonic()
        return tuple(
            ReplicaTrouble(
                stream=stream, node=node, silent=late.silent, for_s=now - late.since, lag=late.lag
            )
            for stream, group in self._groups.items()
            if now - group.seen_at <= KNOWN_S
            for node, late in group.late.items()
            if now - late.since >= (SILENT_S if late.silent else LASTS_S)
        )


def _late(replica: ReplicaInfo, now: float, lately: float) -> _Late | None:
    """Whether it is silent or behind; ``lately``: how many messages were written just before."""
    silent_s = replica.silent_s
    if silent_s is None or silent_s >= SILENT_S:
        return _Late(now - (silent_s or 0.0), silent=True, lag=replica.lag)
    if not replica.current and replica.lag > lately:
        return _Late(now, lag=replica.lag)
    return None
