"""Checks the inputs of tasks against what their handlers declare, so that a mistake never runs.

A handler declares the type of its input beside itself: ``@handler("sleep", input=SleepInput)``.
Plans are checked with it when they are submitted. The handler converts its input all the same:
plans that were accepted before a check existed are still in the log.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from holdfast_worker.handler import AnyHandler, Handler
from service.core.admission import CheckInput
from streams.plan.events import TaskSpec


class CheckedHandler(Handler[..., Any]):
    """A handler that can say more of a decoded input than its type does: what is wrong, or None."""

    def __init__(
        self,
        kind: str,
        run: Callable[..., Any],
        input_type: type[msgspec.Struct],
        complaint: Callable[[Any], str | None],
    ) -> None:
        super().__init__(kind, run, input_type=input_type)
        self.complaint = complaint


def input_check(
    handlers: Mapping[str, AnyHandler], *, judge_by_settings: bool = True
) -> CheckInput:
    """The checks that ``handlers`` declare, by kind; kinds without one take any input.

    Without ``judge_by_settings`` only the types count: another instance runs the tasks.
    """
    decoders = {
        kind: msgspec.json.Decoder(each.input_type, float_hook=float)  # see `json_values`
        for kind, each in handlers.items()
        if each.input_type is not None
    }

    def check(task: TaskSpec) -> str | None:
        decoder = decoders.get(task.kind)
        if decoder is None:
            return None
        try:
            wish = decoder.decode(task.input)
        except msgspec.ValidationError as error:
            return f"task {task.id!r} of kind {task.kind!r}: {_placed(error)}"
        handler = handlers[task.kind]
        if judge_by_settings and isinstance(handler, CheckedHandler):
            said = handler.complaint(wish)
            return f"task {task.id!r} of kind {task.kind!r}: input.{said}" if said else None
        return None

    return check


def _placed(error: msgspec.ValidationError) -> str:
    """The field first: msgspec says it last ("Expected `float`, got `str` - at `$.seconds`")."""
    reason, _, place = str(error).partition(" - at ")
    return f"input{place.strip('`').removeprefix('$')}: {reason}"
