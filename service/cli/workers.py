"""`holdfast workers`: the owners of the last hour, their leases, their last sign of life."""

import click

from service.cli.asking import ago, ask
from service.cli.client import OK, InstanceAddress
from service.cli.options import as_json as as_json_flag
from service.cli.options import command, with_instance
from service.cli.table import show, show_json


@command(
    "workers",
    "list the owners of the last hour, what they hold and their last sign of life",
    more="Leases and signs of life come from the log; claims and refusals are this instance's.",
    examples="holdfast workers",
)
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)
@as_json_flag
@with_instance
def workers(instance: InstanceAddress, *, limit: int, as_json: bool) -> int:
    """Print them; answers the exit code."""
    told = ask(instance, "/v1/workers", query={"limit": limit})
    if as_json:
        show_json(told)
        return OK
    show(
        ("OWNER", "KINDS", "HOLDS", "LIFE", "ASKED", "REFUSED"),
        (
            (
                each["owner"],
                "any" if each["kinds"] is None else ",".join(each["kinds"]),
                each["leases_held"],
                ago(each["last_sign_of_life"]),
                ago(each["last_asked_at"]),
                each["refused"],
            )
            for each in told["workers"]
        ),
    )
    return OK
