"""`holdfast why PLAN[/TASK]`: why it does not run, the evidence, and what would change it."""

from typing import Any

import click

from service.cli.asking import place
from service.cli.client import OK, InstanceAddress
from service.cli.id_completion import places
from service.cli.near_ids import ask_about
from service.cli.options import as_json as as_json_flag
from service.cli.options import command, with_instance
from service.cli.table import say, show_json
from service.runtime.terminal import on_one_line


@command(
    "why",
    "say why a plan or a task does not run",
    examples="holdfast why demo\nholdfast why demo/fetch",
)
@click.argument("what", metavar="PLAN[/TASK]", shell_complete=places)
@as_json_flag
@with_instance
def why(instance: InstanceAddress, what: str, *, as_json: bool) -> int:
    """Print the answer and its reasons; answers the exit code."""
    told = ask_about(instance, *place(what), "/why")
    if as_json:
        show_json(told)
        return OK
    say(on_one_line(told["answer"]))
    for reason in told["reasons"]:
        say(f"{reason['code']} ({_told(reason['evidence'])})", indent=2)
        say(f"next: {on_one_line(reason['next'])}", indent=4)
    return OK


def _told(evidence: dict[str, Any]) -> str:
    """The facts that a reason rests on, and how many tasks have it."""
    sequences = list(map(str, evidence.get("sequences", ())))
    told = [f"sequence{'s' * (len(sequences) > 1)} {', '.join(sequences)}"] if sequences else []
    if tasks := evidence.get("tasks"):
        told.append(f"{tasks} task{'s' * (tasks != 1)}")
    return ", ".join(told)
