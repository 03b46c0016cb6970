"""How many bytes the two streams may hold: worked out from the settings and the room there is.

A bound that Holdfast sets is written down in the stream's metadata as well. So a bound that an
operator has set (`nats stream edit --max-bytes`) differs from one of ours, and stays.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from streams.log import LogUnavailable

# Asks the JetStream API (a question for `Names.api`, JSON body) and gives back its JSON answer.
Ask = Callable[[str, bytes], Awaitable[bytes]]

MARK = "holdfast.max_bytes"
AUDIT_SHARE = 0.1  # of the room, at most: the log needs the rest


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """Of one stream, in bytes: ``most``, and ``share`` of the room, the smaller one of both.

    The room is ``total``, or what is ``free`` now together with what the stream holds. Without any
    of them there is no bound. ``required``: to do without it is an error.
    """

    most: int | None = None
    share: float = 1.0
    free: int | None = None
    total: int | None = None
    required: bool = False

    def bytes_for(self, stored: int) -> int | None:
        """The bound of a stream that holds ``stored`` bytes; None: none is wanted."""
        room = self.total if self.free is None else self.free + stored
        limits = [self.most, None if room is None else int(self.share * room)]
        return min((max(each, 1) for each in limits if each is not None), default=None)


NO_BOUND = Bound()


class StreamBounds(msgspec.Struct, frozen=True, kw_only=True):
    """What the settings say of both streams; None or 0: nothing, streams stay as they are.

    ``disk_free`` are the free bytes of an embedded server's disk; None: the account's limit counts.
    """

    plans_bytes: int | None = None
    plans_share: float = 0.0
    audit_bytes: int | None = None
    disk_free: int | None = None

    @property
    def need_the_account(self) -> bool:
        """Whether the limit of the account matters."""
        shared = self.plans_bytes is None and self.plans_share
        return self.disk_free is None and bool(shared or self.audit_bytes)

    def plans(self, account_bytes: int | None) -> Bound:
        """The log's bound; ``account_bytes`` is what its account may store, None for no limit."""
        if self.plans_bytes is not None:
            return Bound(most=self.plans_bytes, required=True)
        if not self.plans_share:
            return NO_BOUND
        return Bound(share=self.plans_share, free=self.disk_free, total=account_bytes)

    def audit(self, account_bytes: int | None) -> Bound:
        """The audit trail's bound."""
        if self.audit_bytes is None:
            return NO_BOUND
        return Bound(
            most=self.audit_bytes,
            share=AUDIT_SHARE,
            free=self.disk_free,
            total=account_bytes,
        )


UNBOUNDED = StreamBounds()


def limited(config: dict[str, Any], limit: int) -> dict[str, Any]:
    """``config`` with ``limit`` as our own bound."""
    return {**config, "max_bytes": limit, "metadata": {**_metadata(config), MARK: str(limit)}}


def may_limit(config: dict[str, Any], limit: int, stored: int) -> bool:
    """Whether a stream's bound is ours to set, and ``limit`` is another one that harms nothing.

    A stream that refuses new messages when it is full is never bounded below what it holds.
    """
    found, mark = config.get("max_bytes") or -1, _metadata(config).get(MARK)
    is_ours = found == -1 if mark is None else mark == str(found)
    return is_ours and found != limit and (config.get("discard") != "new" or limit > stored)


def _metadata(config: dict[str, Any]) -> dict[str, str]:
    return config.get("metadata") or {}


class AccountLimits(msgspec.Struct, frozen=True):
    """What an account may store, in bytes; -1 for no limit."""

    max_storage: int = -1


class AccountTier(msgspec.Struct, frozen=True):
    """The limits of streams with so many replicas."""

    limits: AccountLimits = AccountLimits()


class AccountAnswer(msgspec.Struct, frozen=True):
    """The parts of the account's INFO that are used."""

    limits: AccountLimits = AccountLimits()
    tiers: dict[str, AccountTier] | None = None


async def account_bytes(ask: Ask, bounds: StreamBounds, replicas: int) -> int | None:
    """What streams of so many replicas may hold in the account, where that matters.

    None: it has no limit, or none is known; users of older account layouts may not ask.
    """
    return await account_limit(ask, replicas) if bounds.need_the_account else None


async def account_limit(ask: Ask, replicas: int) -> int | None:
    """What streams of so many replicas may hold in the account; None: no limit, or not known."""
    try:
        info = msgspec.json.decode(await ask("INFO", b""), type=AccountAnswer)
    except LogUnavailable:
        return None
    tier = (info.tiers or {}).get(f"R{replicas}")
    # The limit of a tier counts a message once, that of an account once for each replica.
    most = info.limits.max_storage // replicas if tier is None else tier.limits.max_storage
    return most if most > 0 else None


def full(error: str, stream: str, max_bytes: int | None) -> str:
    """What to answer for a log that is full: the bound that it has reached, and what gives room."""
    if max_bytes is None or "maximum" not in error:
        return f"{error}; the disk, the account or the server of stream {stream} has no room"
    return (
        f"{error}; stream {stream} may hold {max_bytes:,} bytes: raise nats.plans_max_bytes or "
        "nats.plans_share and start anew, or give the stream another bound"
    )
