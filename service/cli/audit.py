"""`holdfast audit`: entries of the audit trail, the newest first."""

import click

from service.cli.asking import ago, ask
from service.cli.client import OK, InstanceAddress
from service.cli.id_completion import plans
from service.cli.options import as_json as as_json_flag
from service.cli.options import command, with_instance
from service.cli.table import show, show_json


@command(
    "audit",
    "list entries of the audit trail, the newest first",
    examples="holdfast audit --event operator_action\nholdfast audit --plan demo --json",
)
@click.option("--event", help="only entries of this event")
@click.option(
    "--plan", "plan_id", metavar="ID", shell_complete=plans, help="only entries about this plan"
)
@click.option("--task", "task_id", metavar="ID", help="only entries about tasks with this id")
@click.option("--owner", help="only entries about this owner")
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)
@as_json_flag
@with_instance
def audit(instance: InstanceAddress, *, as_json: bool, **query: object) -> int:
    """Print them; answers the exit code."""
    items = ask(instance, "/v1/audit", query=query)["items"]
    if as_json:
        for each in items:
            show_json(each)
        return OK
    show(
        ("AGO", "EVENT", "WHERE", "OWNER", "WHAT"),
        (
            (
                ago(each["at"]),
                each["event"],
                "/".join(part for part in (each["plan_id"], each["task_id"]) if part),
                each["owner"],
                each["detail"],
            )
            for each in items
        ),
    )
    return OK
