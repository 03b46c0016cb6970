"""How long a failed task waits before it may be claimed again."""

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0
SPREAD = 0.2  # each delay is stretched by up to this share, so that tasks failing together part
_GOLDEN = 2654435761  # Knuth's multiplicative hash: neighbouring sequences land far apart


def backoff_s(retry: int, fencing_token: int) -> float:
    """Seconds until the next try after ``retry`` earlier ones: doubling, bounded and spread.

    The spread comes from the failed claim's fencing token, so the same failure always asks for
    the same delay and nothing here rolls dice.
    """
    delay_s = min(FIRST_DELAY_S * 2 ** min(retry, 16), LONGEST_DELAY_S)
    share = (fencing_token * _GOLDEN % 2**32) / 2**32
    return round(delay_s * (1 + SPREAD * share), 3)
