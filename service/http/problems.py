"""Everything that can go wrong, as RFC 9457 problems: one table for codes, one for their causes.

Handlers raise what happened (a refusal of the core, an exception of a lower layer); `explained`
alone decides how it is answered. What it does not know is a defect: 500, logged, and never reached
by input alone.
"""

from collections.abc import Sequence
from typing import Any, TypeVar, cast, get_args

import msgspec
import structlog
from litestar.exceptions import HTTPException
from msgspec import UNSET, UnsetType

from projections.read_models.pagination import BadCursor
from projections.read_models.sqlite_file import DatabaseUnavailable
from service.core.answers import Behind, BeyondHead, Refused, TooMuchUnfinished
from service.http.wording import in_words
from streams.decider import Contention
from streams.log import LogFull, LogReset, LogUnavailable, TooLarge
from streams.plan.decisions import (
    Current,
    GuardReject,
    Invalid,
    NotAllowed,
    NotFound,
    OverLimit,
    PlanExists,
)
from streams.plan.lifecycle import PlanStatus, TaskStatus

PROBLEM_TYPE = "application/problem+json"
RETRY_AFTER_S = 1
_LATER_S = {"too_much_unfinished": 5}  # plans end in seconds, not at once
MAX_DETAIL = 2_000
EMPTY_BODY = "body: it is empty, JSON is expected"

T = TypeVar("T")
_REFUSED: Any = get_args(Refused)  # a tuple of classes: a Union is ten times as slow to ask

log = structlog.get_logger("holdfast.http")


class ProblemRow(msgspec.Struct, frozen=True):
    """One row of the table: the code's HTTP status and its title."""

    status: int
    title: str


PROBLEMS: dict[str, ProblemRow] = {
    "invalid_request": ProblemRow(400, "The request is not valid"),
    "unauthorized": ProblemRow(401, "The token or session is missing or not valid"),
    "forbidden": ProblemRow(403, "The request is not permitted"),
    "not_found": ProblemRow(404, "Not found"),
    "method_not_allowed": ProblemRow(405, "The method is not allowed"),
    "request_timeout": ProblemRow(408, "The request took too long to arrive"),
    "guard_reject": ProblemRow(409, "The lease is held by another attempt"),
    "plan_exists": ProblemRow(409, "The id is taken by a different plan"),
    "not_allowed": ProblemRow(409, "The current state does not allow this"),
    "too_large": ProblemRow(413, "Too large"),
    "too_many": ProblemRow(429, "Too many at a time from one client"),
    "too_much_unfinished": ProblemRow(
        429, "The unfinished plans take all the memory that they may"
    ),
    "head_too_large": ProblemRow(431, "The head of the request is too large"),
    "internal_error": ProblemRow(500, "Internal error"),
    "contended": ProblemRow(503, "Too many concurrent writes to the same subject"),
    "log_unavailable": ProblemRow(503, "The log does not answer"),
    "database_unavailable": ProblemRow(503, "The read models do not answer"),
    "behind": ProblemRow(503, "Not visible yet"),
    "unavailable": ProblemRow(503, "Not available"),
    "log_full": ProblemRow(507, "The log is full"),
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


class RequestRefused(Exception):
    """A request is refused before the core is asked; ``code`` is a key of `PROBLEMS`."""

    def __init__(self, code: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.headers = headers or {}


class CoreRefused(Exception):
    """The core refused a command: the value that it answered, raised for the table of problems."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused)
        self.refused = refused


def accepted(answer: T | Refused) -> T:
    """What the core answers when it does not refuse. Raises CoreRefused."""
    if isinstance(answer, _REFUSED):
        raise CoreRefused(cast("Refused", answer))
    return cast("T", answer)


class Explained(msgspec.Struct, frozen=True):
    """A problem and the headers that go with it."""

    problem: Problem
    headers: dict[str, str] = {}


_CODES: dict[type[Any], str] = {
    NotFound: "not_found",
    Invalid: "invalid_request",
    OverLimit: "too_large",
    PlanExists: "plan_exists",
    Contention: "contended",
    TooMuchUnfinished: "too_much_unfinished",
}


def explained(what: Refused | Exception) -> Explained:
    """The problem that a refusal or an exception is answered with."""
    match what:
        case CoreRefused(refused=refused):
            return explained(refused)
        case GuardReject(current):
            detail = f"the lease is not yours any more: the task is {current.status}, "
            detail += f"attempt {current.attempt}, owner {current.owner or 'nobody'}"
            return _problem("guard_reject", detail, current=_holding(current))
        case NotAllowed(status, detail):
            return _problem("not_allowed", detail, current=Standing(status=status))
        case (
            NotFound() | Invalid() | OverLimit() | PlanExists() | Contention() | TooMuchUnfinished()
        ):
            return _problem(_CODES[type(what)], what.detail)
        case Exception():
            return _explained_exception(what)


def _explained_exception(error: Exception) -> Explained:
    match error:
        case RequestRefused(code=code, detail=detail, headers=headers):
            return _problem(code, detail, headers)
        case LogUnavailable() | LogReset():  # after a reset the instance ends; another one answers
            return _problem("log_unavailable", f"{error}; the same request may safely be repeated")
        case LogFull():
            return _problem("log_full", str(error))
        case TooLarge():
            return _problem("too_large", str(error))
        case Behind(sequence=sequence):
            return _problem("behind", str(error), sequence=sequence)
        case BeyondHead(head=head):
            return _problem("invalid_request", f"at_sequence: {error}", sequence=head)
        case DatabaseUnavailable():
            return _problem("database_unavailable", str(error))
        case BadCursor():
            return _problem("invalid_request", f"after: {error}")
        case HTTPException():
            return _explained_framework(error)
        case _:
            log.error("unexpected", exc_info=error)
            return _problem("internal_error", "see the log of this instance for the request id")


_BY_STATUS = {400: "invalid_request", 401: "unauthorized", 403: "forbidden", 404: "not_found"} | {
    405: "method_not_allowed", 413: "too_large", 503: "unavailable",
}  # fmt: skip


def _explained_framework(error: HTTPException) -> Explained:
    """What Litestar refuses by itself: unknown paths, methods, long bodies and bad parameters."""
    if error.status_code >= 500 and error.status_code != 503:  # noqa: PLR2004 - HTTP's own numbers
        log.error("unexpected", exc_info=error)
        return _problem("internal_error", "see the log of this instance for the request id")
    code = _BY_STATUS.get(error.status_code, "invalid_request")
    detail = error.detail
    if isinstance(error.extra, list):
        detail = _parameter_detail(error.extra) or detail
    return _problem(code, detail, dict(error.headers or {}))


def _parameter_detail(errors: Sequence[Any]) -> str:
    """Litestar's list of the parameters that do not fit, in a user's words."""
    if any(each.get("key") == "data" for each in errors):
        return EMPTY_BODY
    return "; ".join(f"{_name_of(each)}: {in_words(each.get('message', ''))}" for each in errors)


def _name_of(error: dict[str, str]) -> str:
    name = error.get("key", "query")
    return name.replace("_", "-").title() if error.get("source") == "header" else name


def _holding(current: Current) -> Standing:
    return Standing(status=current.status, owner=current.owner, attempt=current.attempt)


def problem_of(code: str, detail: str, **more: Any) -> Problem:  # noqa: ANN401 - see Problem
    """The problem with this code; ``more`` are `Problem`'s further fields."""
    row = PROBLEMS[code]
    return Problem(
        type=f"urn:holdfast:problem:{code}",
        title=row.title,
        status=row.status,
        detail=detail[:MAX_DETAIL],
        code=code,
        **more,
    )


def _problem(
    code: str,
    detail: str,
    headers: dict[str, str] | None = None,
    *,
    current: Standing | None = None,
    sequence: int | None = None,
) -> Explained:
    problem = problem_of(code, detail, current=current, sequence=sequence)
    wait_s = _LATER_S.get(code, RETRY_AFTER_S if problem.status == 503 else None)  # noqa: PLR2004
    retry = {} if wait_s is None else {"Retry-After": str(wait_s)}
    return Explained(problem, retry | (headers or {}))
