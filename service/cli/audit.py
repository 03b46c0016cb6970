"""`holdfast audit`: entries of the audit trail, the newest first."""

from collections.abc import Mapping
from typing import Any

import click

from service.cli.asking import ago, ask
from service.cli.client import OK, InstanceAddress
from service.cli.id_completion import plans
from service.cli.options import as_json as as_json_flag
from service.cli.options import command, with_instance
from service.cli.table import show_items


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
    show_items(items, ("AGO", "EVENT", "WHERE", "OWNER", "WHAT"), _row, as_json=as_json)
    return OK


def _row(entry: Mapping[str, Any]) -> tuple[object, ...]:
    where = "/".join(part for part in (entry["plan_id"], entry["task_id"]) if part)
    return ago(entry["at"]), entry["event"], where, entry["owner"], entry["detail"]
