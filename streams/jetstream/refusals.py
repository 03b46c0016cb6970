"""What JetStream's refusals of a message mean: their codes, and the numbers in their texts."""

import re

WRONG_SEQUENCE = 10071
WRONG_SEQUENCE_IN_FLIGHT = 10164
DUPLICATE_IN_BATCH = 10201
STORE_FAILED = 10077
ACCOUNT_FULL = 10002
SERVER_FULL = 10023
STORAGE_FULL = 10047
TOO_LARGE = 10054

LOST = frozenset({WRONG_SEQUENCE, WRONG_SEQUENCE_IN_FLIGHT})


def is_full(code: int, reason: str) -> bool:
    """Whether the stream's, the account's or the server's bound is reached, or the disk is full."""
    if code == STORE_FAILED:
        return "maximum" in reason or "no space" in reason
    return code in {ACCOUNT_FULL, SERVER_FULL, STORAGE_FULL}


_last_number = re.compile(r"(\d+)\s*$").search


def actual_sequence(reason: str) -> int | None:
    """The sequence in ``wrong last sequence: 7``; None when the log does not name one."""
    found = _last_number(reason)
    return None if found is None else int(found[1])
