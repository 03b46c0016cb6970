"""`holdfast show PLAN[/TASK]`: a plan with its tasks, or a task with its attempts."""

from typing import Any

import click

from service.cli.asking import ago, place
from service.cli.client import OK, InstanceAddress
from service.cli.id_completion import places
from service.cli.near_ids import ask_about
from service.cli.options import as_json as as_json_flag
from service.cli.options import command, with_instance
from service.cli.table import progress_of, say, show_json
from service.cli.table import show as show_table
from service.runtime.terminal import on_one_line

Json = dict[str, Any]


@command(
    "show",
    "show a plan with its tasks, or a task with its attempts",
    examples="holdfast show demo\nholdfast show demo/fetch --json\nholdfast show demo --at 120",
)
@click.argument("what", metavar="PLAN[/TASK]", shell_complete=places)
@click.option("--at", "at_sequence", type=int, metavar="N", help="the plan as it was at sequence N")
@as_json_flag
@with_instance
def show(instance: InstanceAddress, what: str, *, at_sequence: int | None, as_json: bool) -> int:
    """Print it; answers the exit code."""
    plan, task = place(what)
    if task is not None and at_sequence is not None:
        raise click.UsageError("--at is for plans")
    found = ask_about(instance, plan, task, query={"at_sequence": at_sequence})
    if as_json:
        show_json(found)
    elif task is None:
        _show_plan(found)
    else:
        _show_task(found)
    return OK


def _show_plan(plan: Json) -> None:
    name = f" ({on_one_line(plan['name'])})" if plan["name"] else ""
    say(
        f"{plan['plan_id']}{name}  {plan['status']}  {progress_of(plan['counts'])}  "
        f"submitted {ago(plan['created_at'])} ago, sequence {plan['sequence']}"
    )
    columns = ("TASK", "STATUS", "KIND", "ATTEMPT", "RETRY", "OWNER", "CHANGED", "ERROR")
    show_table(columns, map(_task_row, plan["tasks"]))


def _task_row(task: Json) -> tuple[object, ...]:
    return (
        task["task_id"],
        task["status"],
        task["kind"],
        task["attempt"],
        f"{task['retry']}/{task['max_retries']}",
        task["owner"],
        ago(task["updated_at"]),
        task["error_type"] or "",
    )


def _show_task(task: Json) -> None:
    say(f"{task['plan_id']}/{task['task_id']}  {task['status']}  kind {task['kind']}")
    columns = ("ATTEMPT", "STATUS", "OWNER", "CLAIMED", "TOOK", "ERROR")
    show_table(columns, map(_execution_row, task["executions"]))
    for name in ("input", "output", "feedback"):
        if task[name] is not None:
            print(f"{name}:")
            show_json(task[name])


def _execution_row(execution: Json) -> tuple[object, ...]:
    took = execution["duration_s"]
    error = execution["error_type"]
    return (
        execution["attempt"],
        execution["status"],
        execution["owner"],
        ago(execution["claimed_at"]),
        "-" if took is None else f"{took:.2f}s",
        f"{error}: {execution['error_message']}" if error else "",
    )
