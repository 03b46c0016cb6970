"""How long a task that failed, or was given back, waits before it may be claimed again."""

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0
FREE_RELEASES = 2  # in a row; a drain, or an owner without room, costs the task nothing
FIRST_RELEASE_DELAY_S = 0.1
LONGEST_RELEASE_DELAY_S = 30.0
SPREAD = 0.2  # each delay is stretched by up to this share, so that tasks failing together part
_GOLDEN = 2654435761  # Knuth's multiplicative hash: neighbouring sequences land far apart


def release_delay_s(releases: int) -> float:
    """Seconds until the next claim of a task given back ``releases`` times in a row before."""
    if releases < FREE_RELEASES:
        return 0.0
    doubled = FIRST_RELEASE_DELAY_S * 2 ** min(releases - FREE_RELEASES, 16)
    return min(doubled, LONGEST_RELEASE_DELAY_S)


def backoff_s(retry: int, fencing_token: int) -> float:
    """Seconds until the next try after ``retry`` earlier ones: doubling, bounded and spread.

    The spread comes from the failed claim's fencing token, so the same failure always asks for
    the same delay and nothing here rolls dice.
    """
    delay_s = min(FIRST_DELAY_S * 2 ** min(retry, 16), LONGEST_DELAY_S)
    share = (fencing_token * _GOLDEN % 2**32) / 2**32
    return round(delay_s * (1 + SPREAD * share), 3)
