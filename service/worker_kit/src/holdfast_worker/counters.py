"""What a worker has done since it started, in numbers."""

import msgspec


class Counters(msgspec.Struct, kw_only=True):
    """Counted when the server has answered, so the numbers agree with its log.

    ``claimed``: attempts granted. ``completed``, ``failed``, ``released``: results that were
    accepted. ``lost``: attempts that the server refused, or that ended without any answer.
    ``cancelled``: attempts whose plan an operator cancelled.
    ``retried``: requests that were repeated after a transport error, a 429, a 502 or a 503.
    """

    claimed: int = 0
    completed: int = 0
    failed: int = 0
    released: int = 0
    lost: int = 0
    cancelled: int = 0
    retried: int = 0
