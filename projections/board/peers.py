"""Tells which instances claim tasks of a kind at present, and which of them comes first for a task.

Several instances share one log but not one board. So that they do not fight over the same head of
the queue, each task belongs to one of the instances that claim its kind, by its hash. An instance
that never claims a kind is no peer for it: tasks of that kind do not wait for that instance.
"""

from zlib import crc32


class Peers:
    """The peers of instance ``instance_id``, known from the claims in the log.

    A peer for a kind claimed it within `KIND_WINDOW_S`, and anything at all within `SILENT_S`, or
    within `WINDOW_S` of another's claim: while no instance can claim, none is forgotten.
    """

    WINDOW_S = 10.0
    SILENT_S = 60.0
    KIND_WINDOW_S = 300.0
    LOOK_S = 1.0  # how often silent peers are looked for

    def __init__(self, instance_id: str) -> None:
        self.instance_id = instance_id
        self._last_claim: dict[str, float] = {}
        self._last_of_kind: dict[str, dict[str, float]] = {}
        self._ranks: dict[str, tuple[int, int]] = {}
        self._looked_at = 0.0

    def saw(self, instance: str, kind: str, at: float) -> None:
        """Note that ``instance`` claimed a task of ``kind`` at log time ``at``."""
        if instance not in self._last_claim:
            self._ranks.clear()
        self._last_claim[instance] = at
        of_kind = self._last_of_kind.setdefault(kind, {})
        if instance not in of_kind:
            self._ranks.pop(kind, None)
        of_kind[instance] = at

    def last_claim_of(self, kind: str) -> float | None:
        """The log time of the last claim of ``kind`` on any instance; None: not of late."""
        return max(self._last_of_kind.get(kind, {}).values(), default=None)

    def forget_silent(self, now: float) -> None:
        """Forget instances that have not claimed for a while, at log time ``now``."""
        if abs(now - self._looked_at) < self.LOOK_S:
            return
        self._looked_at = now
        newest = max(self._last_claim.values(), default=now)
        silent = _older_than(self._last_claim, max(newest - self.WINDOW_S, now - self.SILENT_S))
        for instance in silent:
            del self._last_claim[instance]
        if silent:
            self._ranks.clear()
        for kind, of_kind in list(self._last_of_kind.items()):
            for instance in _older_than(of_kind, now - self.KIND_WINDOW_S):
                del of_kind[instance]
                self._ranks.pop(kind, None)
            if not of_kind:
                del self._last_of_kind[kind]

    def ahead(self, kind: str, plan_id: str, task_id: str, turn: int) -> tuple[int, int]:
        """How many peers come before this instance on a task in ``turn`` (from 0), and of how many.

        0: it is this instance's turn.
        """
        rank, total = self._ranks.get(kind) or self._rank(kind)
        return (rank - crc32(f"{plan_id}.{task_id}".encode()) - turn) % total, total - 1

    def _rank(self, kind: str) -> tuple[int, int]:
        """The place of this instance among those that claim ``kind``, and how many they are."""
        claiming = {each for each in self._last_of_kind.get(kind, ()) if each in self._last_claim}
        everyone = sorted(claiming | {self.instance_id})
        self._ranks[kind] = rank = everyone.index(self.instance_id), len(everyone)
        return rank


def _older_than(seen: dict[str, float], oldest: float) -> list[str]:
    return [instance for instance, at in seen.items() if at < oldest]
