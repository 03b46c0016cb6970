"""Checks the inputs of tasks against what their handlers declare, so that a mistake never runs.

A handler declares the type of its input beside itself: ``@handler("sleep", input=SleepInput)``.
Plans are checked with it when they are submitted. The handler converts its input all the same:
plans that were accepted before a check existed are still in the log.
"""

from collections.abc import Callable, Mapping

import msgspec

from holdfast_worker.handler import AnyHandler
from streams.plan.events import TaskSpec

CheckInput = Callable[[TaskSpec], str | None]
"""What is wrong with the input of a task: task, field and reason; None: nothing."""


def input_check(handlers: Mapping[str, AnyHandler]) -> CheckInput:
    """The checks that ``handlers`` declare, by kind; kinds without one take any input."""
    decoders = {
        kind: msgspec.json.Decoder(each.input_type)
        for kind, each in handlers.items()
        if each.input_type is not None
    }

    def check(task: TaskSpec) -> str | None:
        decoder = decoders.get(task.kind)
        if decoder is None:
            return None
        try:
            decoder.decode(task.input)
        except msgspec.ValidationError as error:
            return f"task {task.id!r} of kind {task.kind!r}: {_placed(error)}"
        return None

    return check


def _placed(error: msgspec.ValidationError) -> str:
    """The field first: msgspec says it last ("Expected `float`, got `str` - at `$.seconds`")."""
    reason, _, place = str(error).partition(" - at ")
    return f"input{place.strip('`').removeprefix('$')}: {reason}"
