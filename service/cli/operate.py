"""`holdfast pause|resume|cancel|retry`: what operators do with a plan, and their reason."""

import click

from service.cli.asking import place
from service.cli.client import OK, InstanceAddress
from service.cli.id_completion import places, plans
from service.cli.near_ids import ask_about
from service.cli.options import as_json as as_json_flag
from service.cli.options import command, with_instance
from service.cli.table import progress_of, show_json

_REASON = click.option("--reason", default="", help="why; it stands in the audit trail")


def _act(
    instance: InstanceAddress,
    what: tuple[str, str | None],
    verb: str,
    reason: str,
    *,
    as_json: bool,
) -> int:
    found = ask_about(instance, *what, f"/{verb}", body={"reason": reason})
    if as_json:
        show_json(found)
    elif "counts" in found:
        print(
            f"{found['plan_id']} is {found['status']}, {progress_of(found['counts'])} tasks ended"
        )
    else:
        print(f"{found['plan_id']}/{found['task_id']} is {found['status']}")
    return OK


def _of_plan(verb: str, says: str) -> click.Command:
    @command(verb, says, examples=f'holdfast {verb} demo --reason "the provider is down"')
    @click.argument("plan", shell_complete=plans)
    @_REASON
    @as_json_flag
    @with_instance
    def act(instance: InstanceAddress, plan: str, *, reason: str, as_json: bool) -> int:
        what = place(plan)
        if what[1] is not None:
            raise click.UsageError(f"{verb} is for plans: holdfast {verb} {what[0]}")
        return _act(instance, what, verb, reason, as_json=as_json)

    return act


pause = _of_plan("pause", "stop claims of a plan; running tasks may end")
resume = _of_plan("resume", "allow claims of a paused plan again")
cancel = _of_plan("cancel", "end every unfinished task of a plan at once")


@command(
    "retry",
    "give a FAILED task, or all FAILED tasks of a plan, fresh budgets",
    examples="holdfast retry demo\nholdfast retry demo/fetch --reason 'the disk has room again'",
)
@click.argument("what", metavar="PLAN[/TASK]", shell_complete=places)
@_REASON
@as_json_flag
@with_instance
def retry(instance: InstanceAddress, what: str, *, reason: str, as_json: bool) -> int:
    """Retry it; answers the exit code."""
    return _act(instance, place(what), "retry", reason, as_json=as_json)
