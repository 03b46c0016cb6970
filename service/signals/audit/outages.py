"""Outages of the log and of the database: audited when they begin and when they end."""

from projections.read_models.views import moment
from service.signals.audit.trail import Audit


class Outage:
    """One thing that can be away, as several witnesses see it; lives on the API loop.

    It is away from the first report that it is missing until every witness has reached it again.
    """

    def __init__(self, audit: Audit, gone: str, back: str) -> None:
        """``gone`` and ``back`` are the audit events of the window's ends."""
        self._audit = audit
        self._gone = gone
        self._back = back
        self._missed_by: dict[str, str] = {}
        self._since: float | None = None

    @property
    def since(self) -> float | None:
        """The log time since which it has been away; None while it is there."""
        return self._since

    def missed(self, witness: str, why: str, at: float) -> None:
        """``witness`` cannot reach it, at log time ``at``."""
        self._missed_by[witness] = why
        if self._since is None:
            self._since = at
            self._audit.emit(
                self._gone,
                actual={"from": moment(at), "witness": witness},
                detail=f"{witness}: {why}",
                at=at,
            )

    def found(self, witness: str, at: float) -> bool:
        """``witness`` has reached it, at log time ``at``; whether that ended the outage."""
        why = self._missed_by.pop(witness, None)
        if why is None or self._missed_by or self._since is None:
            return False
        since, self._since = self._since, None
        seconds = round(max(at - since, 0.0), 3)
        self._audit.emit(
            self._back,
            actual={"from": moment(since), "to": moment(at), "seconds": seconds},
            detail=f"away for {seconds:g} s from {moment(since)} to {moment(at)}: {why}",
            at=at,
        )
        return True
