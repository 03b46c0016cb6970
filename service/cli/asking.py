"""One question to an instance: its answer as JSON, or the error that ends the command."""

import re
from datetime import UTC, datetime
from typing import Any

import httpx

from holdfast_worker.wire import ROUTE_MISSING
from service.cli.client import FAILED, UNREACHABLE, USAGE, InstanceAddress, complaint_of, detail_of
from service.settings.config import ConfigError

NOT_FOUND = 404
CONFLICT = 409
SERVER_TROUBLE = 500

_place = re.compile(r"([A-Za-z0-9_-]{1,64})(?:/([A-Za-z0-9_-]{1,64}))?").fullmatch


class AskedInVain(Exception):
    """The instance refused, or cannot be reached; ``code`` is the exit code.

    ``missing``: what was asked about is not there.
    """

    def __init__(self, text: str, code: int, *, missing: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.missing = missing


def ask(
    instance: InstanceAddress,
    path: str,
    *,
    query: dict[str, Any] | None = None,
    body: dict[str, Any] | None = None,
) -> Any:  # noqa: ANN401 - what JSON holds
    """GET ``path``, or POST ``body`` to it. Raises AskedInVain."""
    given = {name: value for name, value in (query or {}).items() if value is not None}
    try:
        with instance.connect() as client:
            method = "GET" if body is None else "POST"
            answer = client.request(method, path, params=given, json=body)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise AskedInVain(f"cannot reach {instance.url}: {error}", UNREACHABLE) from None
    if answer.status_code == NOT_FOUND and detail_of(answer) in ROUTE_MISSING:
        raise AskedInVain(f"{instance.url}: there is no Holdfast here ({path} is not found)", USAGE)
    if not answer.is_success:
        code = UNREACHABLE if answer.status_code >= SERVER_TROUBLE else USAGE
        code = FAILED if answer.status_code in {NOT_FOUND, CONFLICT} else code
        missing = answer.status_code == NOT_FOUND
        raise AskedInVain(complaint_of(answer), code, missing=missing)
    try:
        return answer.json()
    except ValueError:
        raise AskedInVain(
            f"{instance.url} is no Holdfast: it answers no JSON", UNREACHABLE
        ) from None


def place(text: str) -> tuple[str, str | None]:
    """``PLAN`` or ``PLAN/TASK``. Raises ConfigError."""
    found = _place(text)
    if found is None:
        raise ConfigError(f"{text!r} is neither PLAN nor PLAN/TASK")
    return found[1], found[2]


def path_of(plan: str, task: str | None) -> str:
    """The API's path of a plan, or of one of its tasks."""
    return f"/v1/plans/{plan}" if task is None else f"/v1/plans/{plan}/tasks/{task}"


def ago(at: str | None) -> str:
    """How long ago a time of an answer is: ``12s``, ``3m``; a time to come has a plus."""
    if at is None:
        return "-"
    seconds = (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()
    sign, seconds = ("+", -seconds) if seconds < 0 else ("", seconds)
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{sign}{seconds / size:.0f}{unit}"
    return f"{sign}{seconds:.0f}s"
