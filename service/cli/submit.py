"""`holdfast submit`: posts a plan, again if the answer is lost, and follows it to its end."""

import sys
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import tenacity

from service.cli.client import (
    FAILED,
    OK,
    UNREACHABLE,
    USAGE,
    Instance,
    complain,
    complaint_of,
)
from service.cli.follower import Asked, Event, follow
from service.http.plan_ids import new_plan_id
from service.runtime.terminal import escaped, on_one_line

TRIES = 5
LONGEST_PAUSE_S = 5.0
SERVER_TROUBLE = 500
PATIENCE_S = 300.0

Json = dict[str, Any]


class _TryAgainError(Exception):
    """The instance could not be reached, or cannot answer now."""


class BadFile(Exception):
    """The file holds no plan."""


def submit(file: str, instance: Instance, *, follow: bool) -> int:
    """Post the plan in ``file`` (- is standard input); answers the exit code."""
    try:
        plan = _plan_in(file)
    except BadFile as error:
        return complain(error, USAGE)
    with instance.connect() as client:
        try:
            answer = _post(client, plan)
        except (_TryAgainError, httpx.HTTPError, httpx.InvalidURL) as error:
            return complain(f"cannot reach {instance.url}: {error}", UNREACHABLE)
        if not answer.is_success:
            code = UNREACHABLE if answer.status_code >= SERVER_TROUBLE else USAGE
            return complain(complaint_of(answer), code)
        accepted: Json = answer.json()
        was = "accepted" if accepted["created"] else "was there already"
        print(f"plan {accepted['plan_id']} {was}, sequence {accepted['sequence']}", flush=True)
        for warning in accepted.get("warnings", ()):
            complain(f"warning: {warning}", OK)
        return _follow(instance, accepted["plan_id"]) if follow else OK


def _plan_in(file: str) -> Json:
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        plan: object = msgspec.json.decode(content)
    except OSError as error:
        raise BadFile(f"{file}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadFile(f"{file}: not valid JSON: {error}") from None
    if not isinstance(plan, dict):
        raise BadFile(f"{file}: a plan is a JSON object")
    return {"id": new_plan_id()} | cast("Json", plan)


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(_TryAgainError),
    stop=tenacity.stop_after_attempt(TRIES),
    wait=tenacity.wait_random_exponential(multiplier=0.2, max=LONGEST_PAUSE_S),
    reraise=True,
)
def _post(client: httpx.Client, plan: Json) -> httpx.Response:
    """The plan has an id, so saying it again changes nothing."""
    try:
        answer = client.post("/v1/plans", json=plan)
    except httpx.TransportError as error:
        raise _TryAgainError(str(error) or type(error).__name__) from error
    if answer.status_code in {503, 504, 502}:
        raise _TryAgainError(complaint_of(answer))
    return answer


# -- follow -----------------------------------------------------------------------------------


def _follow(instance: Instance, plan_id: str) -> int:
    """Print each event until the plan has ended; a lost stream is resumed where it broke off."""
    ended: list[str] = []  # the last one counts: a plan can be retried

    def show(event: Event) -> None:
        if event["type"] == "plan.finished":
            ended.append(event["data"]["status"])
        print(escaped(_line(event)), flush=True)

    code = follow(instance, Asked(plan_id=plan_id), show, patience_s=PATIENCE_S)
    if code != OK or not ended:
        return code
    print(ended[-1])
    return OK if ended[-1] == "COMPLETED" else FAILED


def _line(event: Event) -> str:
    task_id = event["task_id"] or ""
    data = event["data"]
    parts = [
        f"{name} {on_one_line(data[name])}"
        for name in ("status", "owner", "error_type")
        if data.get(name)
    ]
    if event["type"] == "task.claimed":
        parts.append(f"attempt {data['attempt']}")
    return f"{event['sequence']:>7}  {event['type']:<16} {task_id:<20} {', '.join(parts)}".rstrip()
