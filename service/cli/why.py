"""`holdfast why PLAN[/TASK]`: why it does not run, the evidence, and what would change it."""

import click

from service.cli.asking import ask, path_of, place
from service.cli.client import OK, InstanceAddress
from service.cli.options import as_json as as_json_flag
from service.cli.options import command, with_instance
from service.cli.table import show_json
from service.runtime.terminal import on_one_line


@command(
    "why",
    "say why a plan or a task does not run",
    examples="holdfast why demo\nholdfast why demo/fetch",
)
@click.argument("what", metavar="PLAN[/TASK]")
@as_json_flag
@with_instance
def why(instance: InstanceAddress, what: str, *, as_json: bool) -> int:
    """Print the answer and its reasons; answers the exit code."""
    told = ask(instance, f"{path_of(*place(what))}/why")
    if as_json:
        show_json(told)
        return OK
    print(on_one_line(told["answer"]))
    for reason in told["reasons"]:
        sequences = ", ".join(map(str, reason["evidence"].get("sequences", ())))
        counted = reason["evidence"].get("tasks")
        tasks = f", {counted} tasks" if counted else ""
        print(f"  {reason['code']} (sequence {sequences}{tasks})")
        print(f"    next: {on_one_line(reason['next'])}")
    return OK
