"""Tokens of language models that an attempt used, until they are reported."""

from collections import Counter
from threading import Lock

Usage = dict[str, int]
"""Tokens by the names that a result has for them, such as ``input_tokens``."""


class Spent:
    """Tokens that one attempt used and has not reported yet, added up; any thread may count."""

    def __init__(self) -> None:
        self.model_name: str | None = None
        self._lock = Lock()
        self._counts: Counter[str] | None = None  # None: no call was counted

    def add(self, model: str | None, given: int, made: int, cached: int, reasoning: int) -> None:
        """Count one call; raises ValueError for a negative number."""
        if min(given, made, cached, reasoning) < 0:
            raise ValueError("numbers of tokens are whole numbers from 0")
        self.model_name = model or self.model_name
        counts = {"input_tokens": given, "output_tokens": made, "total_tokens": given + made}
        optional = {"cached_tokens": cached, "reasoning_tokens": reasoning}
        self._add(counts | {name: count for name, count in optional.items() if count})

    @property
    def usage(self) -> Usage | None:
        """The sums as a result carries them; None: no call was counted since the last report."""
        with self._lock:
            return None if self._counts is None else dict(self._counts)

    def take(self) -> Usage | None:
        """The sums, to be reported; `settle` follows."""
        with self._lock:
            taken, self._counts = self._counts, None
            return None if taken is None else dict(taken)

    def settle(self, taken: Usage | None, *, reported: bool) -> None:
        """What was taken is in the log, or counts again."""
        if taken is not None and not reported:
            self._add(taken)

    def _add(self, counts: Usage) -> None:
        with self._lock:
            self._counts = self._counts or Counter()
            self._counts.update(counts)
