"""Everything that can go wrong, as RFC 9457 problems: one table for codes, one for their causes.

Handlers raise or return what happened (a value of the core, an exception of a lower layer);
`explained` alone decides how that is told. What it does not know is a bug: 500, logged, and never
reached by input alone.
"""

from typing import Any

import msgspec
import structlog
from litestar.exceptions import HTTPException
from msgspec import UNSET, UnsetType

from projections.read_models.database import DatabaseUnavailable
from projections.read_models.pagination import BadCursor
from service.core.results import Behind, Refused
from streams.decider import Contention
from streams.log import LogFull, LogReset, LogUnavailable, TooLarge
from streams.plan.decide import Current, GuardReject, Invalid, NotAllowed, NotFound, PlanExists
from streams.plan.lifecycle import PlanStatus, TaskStatus

PROBLEM_TYPE = "application/problem+json"
RETRY_AFTER_S = 1
MAX_DETAIL = 2_000

log = structlog.get_logger("holdfast.http")


class Kind(msgspec.Struct, frozen=True):
    """One row of the table: the code's HTTP status and its title."""

    status: int
    title: str


PROBLEMS: dict[str, Kind] = {
    "invalid_request": Kind(400, "The request does not fit"),
    "unauthorized": Kind(401, "Who asks is not known"),
    "forbidden": Kind(403, "Who asks may not do this"),
    "not_found": Kind(404, "There is no such thing"),
    "method_not_allowed": Kind(405, "The method is not allowed here"),
    "guard_reject": Kind(409, "The lease is held by another attempt"),
    "plan_exists": Kind(409, "The id is taken by a different plan"),
    "not_allowed": Kind(409, "The state forbids it"),
    "too_large": Kind(413, "Too large"),
    "internal_error": Kind(500, "A defect of Holdfast"),
    "contended": Kind(503, "Lost the race too often"),
    "log_unavailable": Kind(503, "The log does not answer"),
    "database_unavailable": Kind(503, "The read models do not answer"),
    "behind": Kind(503, "Not visible yet"),
    "unavailable": Kind(503, "Not available now"),
    "log_full": Kind(507, "The log is full"),
}
"""Every code that an answer may carry."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How the plan or task stands that refused; owner and attempt if a lease was meant."""

    status: TaskStatus | PlanStatus
    owner: str | UnsetType | None = UNSET
    attempt: int | UnsetType = UNSET


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An RFC 9457 problem; ``current`` and ``sequence`` come with the codes that API.md names.

    ``status`` is always the HTTP status, so the state that forbids something is in ``current``.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    current: Standing | None = None
    sequence: int | None = None


class Refusal(Exception):
    """Raised where a request is refused before the core is asked."""

    def __init__(self, code: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.headers = headers or {}


class Told(msgspec.Struct, frozen=True):
    """A problem and the headers that go with it."""

    problem: Problem
    headers: dict[str, str] = {}


def explained(what: Refused | Exception) -> Told:
    """What happened, as it is told to whoever asked."""
    match what:
        case GuardReject(current):
            detail = f"the lease is not yours any more: the task is {current.status}, "
            detail += f"attempt {current.attempt}, owner {current.owner or 'nobody'}"
            return _told("guard_reject", detail, current=_holding(current))
        case NotAllowed(status, detail):
            return _told("not_allowed", detail, current=Standing(status=status))
        case NotFound(detail):
            return _told("not_found", detail)
        case Invalid(detail):
            return _told("invalid_request", detail)
        case PlanExists(detail):
            return _told("plan_exists", detail)
        case Contention():
            return _told("contended", what.detail)
        case Exception():
            return _explained_exception(what)


def _explained_exception(error: Exception) -> Told:
    match error:
        case Refusal(code=code, detail=detail, headers=headers):
            return _told(code, detail, headers)
        case LogUnavailable() | LogReset():  # after a reset the instance ends; another one answers
            return _told("log_unavailable", f"{error}; the same request may safely be repeated")
        case LogFull():
            return _told("log_full", str(error))
        case TooLarge():
            return _told("too_large", str(error))
        case Behind(sequence=sequence):
            return _told("behind", str(error), sequence=sequence)
        case DatabaseUnavailable():
            return _told("database_unavailable", str(error))
        case BadCursor():
            return _told("invalid_request", f"after: {error}")
        case HTTPException():
            return _explained_framework(error)
        case _:
            log.error("unexpected", exc_info=error)
            return _told("internal_error", "see the log of this instance for the request id")


_BY_STATUS = {400: "invalid_request", 401: "unauthorized", 403: "forbidden", 404: "not_found"} | {
    405: "method_not_allowed", 413: "too_large", 503: "unavailable",
}  # fmt: skip


def _explained_framework(error: HTTPException) -> Told:
    """What Litestar refuses by itself: unknown paths, methods, and its own parameters."""
    if error.status_code >= 500 and error.status_code != 503:  # noqa: PLR2004 - HTTP's own numbers
        log.error("unexpected", exc_info=error)
        return _told("internal_error", "see the log of this instance for the request id")
    code = _BY_STATUS.get(error.status_code, "invalid_request")
    return _told(code, _detail(error), dict(error.headers or {}))


def _detail(error: HTTPException) -> str:
    extra: Any = error.extra
    if not isinstance(extra, list):
        return error.detail
    places = [f"{each.get('key')}: {each.get('message')}" for each in extra]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return "; ".join(places) or error.detail


def _holding(current: Current) -> Standing:
    return Standing(status=current.status, owner=current.owner, attempt=current.attempt)


def _told(
    code: str,
    detail: str,
    headers: dict[str, str] | None = None,
    *,
    current: Standing | None = None,
    sequence: int | None = None,
) -> Told:
    kind = PROBLEMS[code]
    problem = Problem(
        type=f"urn:holdfast:problem:{code}",
        title=kind.title,
        status=kind.status,
        detail=detail[:MAX_DETAIL],
        code=code,
        current=current,
        sequence=sequence,
    )
    retry = {"Retry-After": str(RETRY_AFTER_S)} if kind.status == 503 else {}  # noqa: PLR2004
    return Told(problem, retry | (headers or {}))
