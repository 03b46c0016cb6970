"""Pauses between tries: each twice as long as the one before, up to a bound, never in step."""

import random


def pause_s(tries: int, first_s: float, longest_s: float) -> float:
    """How long to wait after ``tries`` tries without success, 1 and more."""
    longest_s = min(first_s * 2.0 ** (tries - 1), longest_s)
    return random.uniform(longest_s / 2, longest_s)  # noqa: S311 - spreads load, hides nothing
