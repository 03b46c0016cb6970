"""What a wrong token costs: it is counted, audited once a minute for each address, and slowed."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from service.principals.tokens import WrongToken
from service.signals.audit.trail import Audit
from service.signals.metrics.registry import Metrics


class RefusalLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How long wrong tokens wait for their answer, and how many addresses are remembered."""

    first_pause_s: float = 0.05  # doubled by each further wrong token of the address
    longest_pause_s: float = 2.0
    forget_s: float = 60.0  # without a wrong token an address begins anew; also between two audits
    addresses: int = 1_000  # the one that was longest silent is forgotten first
    waiting: int = 500  # answers that wait; further ones do not


LIMITS = RefusalLimits()


class _Address:
    """The wrong tokens of one address."""

    __slots__ = ("audited_at", "last_at", "recent", "untold")

    def __init__(self) -> None:
        self.recent = 0
        self.untold = 0
        self.last_at = 0.0
        self.audited_at: float | None = None


class RefusedTokens:
    """Remembers who came with wrong tokens. A right token is never slowed."""

    def __init__(
        self,
        metrics: Metrics,
        audit: Audit,
        limits: RefusalLimits = LIMITS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._audit = audit
        self._limits = limits
        self._now = now
        self._addresses: OrderedDict[str, _Address] = OrderedDict()
        self._waiting = 0

    async def note(self, address: str, wrong: WrongToken) -> None:
        """Count and audit it; returns when it may be answered."""
        self._metrics.count("agent.http.token.refused.total")
        seen = self._seen(address)
        self._tell(address, seen, wrong)
        limits = self._limits
        pause_s = limits.first_pause_s * 2.0 ** min(seen.recent - 1, 20)
        if self._waiting < limits.waiting:
            self._waiting += 1
            try:
                await asyncio.sleep(min(pause_s, limits.longest_pause_s))
            finally:
                self._waiting -= 1

    def _seen(self, address: str) -> _Address:
        seen = self._addresses.pop(address, None) or _Address()
        self._addresses[address] = seen
        if len(self._addresses) > self._limits.addresses:
            self._addresses.popitem(last=False)
        now = self._now()
        if now - seen.last_at > self._limits.forget_s:
            seen.recent = 0
        seen.last_at = now
        seen.recent += 1
        seen.untold += 1
        return seen

    def _tell(self, address: str, seen: _Address, wrong: WrongToken) -> None:
        """Write an audit entry, unless the address had one less than a minute ago."""
        now = self._now()
        if seen.audited_at is not None and now - seen.audited_at < self._limits.forget_s:
            return
        seen.audited_at = now
        count, seen.untold = seen.untold, 0
        self._audit.emit(
            "token_refused",
            actual={
                "address": address,
                "reason": wrong.why,
                "token_id": wrong.token_id,
                "count": count,
            },
            detail=f"{wrong.why} token from {address}, {count} since the entry before",
        )
