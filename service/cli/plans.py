"""`holdfast plans`: lists plans, the newest first."""

from collections.abc import Mapping
from typing import Any

import click

from service.cli.asking import ago, ask
from service.cli.client import OK, InstanceAddress
from service.cli.options import as_json as as_json_flag
from service.cli.options import command, with_instance
from service.cli.table import progress_of, show_items
from streams.plan.lifecycle import PLAN_STATUSES

COLUMNS = ("PLAN", "STATUS", "TASKS", "SUBMITTED", "NAME")


@command(
    "plans",
    "list plans, the newest first",
    examples="holdfast plans --status FAILED\nholdfast plans --label team=search --json",
)
@click.option("--status", type=click.Choice(PLAN_STATUSES, case_sensitive=False))
@click.option("--label", metavar="KEY[=VALUE]", help="only plans with this label")
@click.option("--kind", help="only plans with a task of this kind")
@click.option("--error-type", help="only plans in which an attempt failed so")
@click.option("--text", help="only plans with this in their id or name")
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)
@as_json_flag
@with_instance
def plans(instance: InstanceAddress, *, as_json: bool, **query: object) -> int:
    """Print plans; answers the exit code."""
    items = ask(instance, "/v1/plans", query=query)["items"]
    show_items(items, COLUMNS, row, as_json=as_json)
    return OK


def row(plan: Mapping[str, Any]) -> tuple[object, ...]:
    """A plan's cells below `COLUMNS`."""
    tasks, submitted = progress_of(plan["counts"]), ago(plan["created_at"])
    return plan["plan_id"], plan["status"], tasks, submitted, plan["name"]
