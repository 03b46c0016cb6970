"""`holdfast events`: prints events as they come, and after any break goes on where it stopped."""

from collections.abc import Iterator
from typing import Any

import click
import msgspec

from service.cli.client import InstanceAddress
from service.cli.follower import EventData, FollowRequest, follow
from service.cli.id_completion import plans
from service.cli.options import as_json as as_json_flag
from service.cli.options import command, with_instance
from service.cli.output import leave_with_reader
from service.runtime.terminal import escaped, escaped_json, on_one_line
from streams.texts import shortened

SHORTENED = 60

_encode = msgspec.json.Encoder().encode


@command(
    "events",
    "print events as they happen",
    more="A lost connection is resumed where it broke off, for as long as it takes; a note goes\n"
    "to standard error. Heartbeats come only if named in --types.\n"
    "A plan's own stream ends with the plan (exit code 0).",
    examples="holdfast events --plan demo\n"
    "holdfast events --types task.failed,plan.finished\n"
    "holdfast events --after 0 --json",
)
@click.option(
    "--plan", metavar="ID", shell_complete=plans, help="only this plan, from its beginning"
)
@click.option("--task", metavar="ID", help="only the tasks with this id")
@click.option("--types", metavar="LIST", help="only these types, separated by commas")
@click.option("--after", type=int, metavar="N", help="only what follows sequence N")
@as_json_flag
@with_instance
def events(
    instance: InstanceAddress,
    *,
    plan: str | None,
    task: str | None,
    types: str | None,
    after: int | None,
    as_json: bool,
) -> int:
    """Print what is asked for until a plan's own stream ends; answers the exit code."""
    asked = FollowRequest(plan_id=plan, task_id=task, types=types, after=after)

    def show(event: EventData) -> None:
        print(escaped_json(_encode(event).decode()) if as_json else line(event), flush=True)

    leave_with_reader()
    return follow(instance, asked, show)


def line(event: dict[str, Any]) -> str:
    """One event for a person: time, sequence, type, place, and what matters most of the rest."""
    place = "/".join(part for part in (event["plan_id"], event["task_id"]) if part)
    said = ", ".join(_said(event["data"]))
    return escaped(
        f"{event['at'][:23]:<23}  {event['sequence']:>7}  {event['type']:<15}  {place}  {said}"
    )


def _said(data: dict[str, Any]) -> Iterator[str]:
    if "tasks" in data:
        yield f"{len(data['tasks'])} tasks"
    for name in ("attempt", "owner", "status", "error_type", "error_message", "reason"):
        if data.get(name):
            yield f"{name} {shortened(on_one_line(str(data[name])), SHORTENED)}"
    for name in ("output", "verdict", "data"):
        if data.get(name) is not None:
            yield f"{name} {shortened(on_one_line(_encode(data[name]).decode()), SHORTENED)}"
