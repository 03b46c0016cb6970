"""`holdfast submit`: posts a plan, again if the answer is lost, and follows it to its end."""

from contextlib import suppress
from typing import Any

import click
import httpx
import tenacity

from service.cli.asking import AskedInVain, ask
from service.cli.client import (
    FAILED,
    OK,
    UNREACHABLE,
    USAGE,
    InstanceAddress,
    complain,
    complaint_of,
    detail_of,
)
from service.cli.follower import EventData, FollowRequest, follow
from service.cli.options import command, with_instance
from service.cli.path_completion import files
from service.cli.plan_file import BadFile, ReadPlan, plan_in
from service.cli.silence import Silence
from service.http.plan_ids import new_plan_id
from service.runtime.terminal import escaped, on_one_line

TRIES = 5
LONGEST_PAUSE_S = 5.0
SERVER_TROUBLE = 500
BAD_REQUEST = 400
PATIENCE_S = 300.0
SILENT_S = 2.0  # without an event: it is said why nothing moves

Json = dict[str, Any]


class _TryAgainError(Exception):
    """The instance could not be reached, or cannot answer now."""


@command(
    "submit",
    "submit a plan",
    more="FILE holds the plan as JSON, YAML (.yaml, .yml) or TOML (.toml); - is JSON on standard\n"
    "input. A plan without an id gets one here, so a retry never submits it twice.\n"
    "With --follow the exit code is 0 if the plan is COMPLETED, 1 if FAILED or CANCELLED.",
    examples="holdfast submit plan.json --follow\n"
    'echo \'{"tasks": [{"id": "a", "kind": "echo"}]}\' | holdfast submit -',
)
@click.argument("file", shell_complete=files)
@click.option("--follow", is_flag=True, help="print each event until the plan has ended")
@with_instance
def submit(instance: InstanceAddress, file: str, *, follow: bool) -> int:
    """Post the plan in ``file`` (- is standard input); answers the exit code."""
    try:
        read = plan_in(file)
    except BadFile as error:
        return complain(error, USAGE)
    plan = {"id": new_plan_id()} | read.plan
    with instance.connect() as client:
        try:
            answer = _post(client, plan)
        except (_TryAgainError, httpx.HTTPError, httpx.InvalidURL) as error:
            return complain(f"cannot reach {instance.url}: {error}", UNREACHABLE)
        if not answer.is_success:
            code = UNREACHABLE if answer.status_code >= SERVER_TROUBLE else USAGE
            return complain(_located(read, answer) + complaint_of(answer), code)
        accepted: Json = answer.json()
        was = "accepted" if accepted["created"] else "was there already"
        print(f"plan {accepted['plan_id']} {was}, sequence {accepted['sequence']}", flush=True)
        for warning in accepted.get("warnings", ()):
            complain(f"warning: {warning}", OK)
        return _follow(instance, accepted["plan_id"]) if follow else OK


def _located(read: ReadPlan, answer: httpx.Response) -> str:
    """Line and column of what was refused, before the complaint; empty if it names no place."""
    return read.located(detail_of(answer)) if answer.status_code == BAD_REQUEST else ""


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


def _follow(instance: InstanceAddress, plan_id: str) -> int:
    """Print each event until the plan has ended; a lost stream is resumed where it broke off."""
    ended: list[str] = []  # the last one counts: a plan can be retried
    silence = Silence(SILENT_S, lambda: _tell_why(instance, plan_id))

    def show(event: EventData) -> None:
        silence.broken()
        if event["type"] == "plan.finished":
            ended.append(event["data"]["status"])
        print(escaped(_line(event)), flush=True)

    with silence:
        code = follow(instance, FollowRequest(plan_id=plan_id), show, patience_s=PATIENCE_S)
    if code != OK or not ended:
        return code
    print(ended[-1])
    return OK if ended[-1] == "COMPLETED" else FAILED


def _tell_why(instance: InstanceAddress, plan_id: str) -> None:
    with suppress(AskedInVain):  # the stream itself says what is wrong with the instance
        answer = ask(instance, f"/v1/plans/{plan_id}/why")["answer"]
        print(f"         why: {on_one_line(answer)}", flush=True)


def _line(event: EventData) -> str:
    task_id = event["task_id"] or ""
    data = event["data"]
    parts = [
        f"{name} {on_one_line(data[name])}"
        for name in ("status", "owner", "error_type", "error_message")
        if data.get(name)
    ]
    if event["type"] == "task.claimed":
        parts.append(f"attempt {data['attempt']}")
    return f"{event['sequence']:>7}  {event['type']:<16} {task_id:<20} {', '.join(parts)}".rstrip()
