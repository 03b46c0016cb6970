"""`holdfast plans`: lists plans, the newest first."""

import click

from service.cli.asking import ago, ask
from service.cli.client import OK, InstanceAddress
from service.cli.options import as_json as as_json_flag
from service.cli.options import command, with_instance
from service.cli.table import progress_of, show, show_json
from streams.plan.lifecycle import PLAN_STATUSES


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
    if as_json:
        for each in items:
            show_json(each)
        return OK
    show(
        ("PLAN", "STATUS", "TASKS", "SUBMITTED", "NAME"),
        (
            (
                each["plan_id"],
                each["status"],
                progress_of(each["counts"]),
                ago(each["created_at"]),
                each["name"],
            )
            for each in items
        ),
    )
    return OK
