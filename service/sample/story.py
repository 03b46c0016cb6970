"""Prints one plan's facts on the terminal, a line each."""

from collections.abc import Callable
from datetime import datetime
from shutil import get_terminal_size
from typing import cast

import msgspec

from service.runtime.terminal import escaped
from streams.log import Fact
from streams.plan.events import (
    TYPE_NAMES,
    Claimed,
    Completed,
    Event,
    Failed,
    Finished,
    Heartbeat,
    Released,
    Started,
    Submitted,
)
from streams.texts import shortened

WIDTH = 100  # where there is no terminal
SAID = 60  # characters of an output, feedback or error


class Story:
    """Says the facts of one plan as they are folded; calls ``at_end`` once, when it finishes."""

    def __init__(
        self, plan_id: str, say: Callable[[str], object], at_end: Callable[[], None]
    ) -> None:
        self._plan_id = plan_id
        self._say = say
        self._at_end = at_end

    def folded(self, fact: Fact) -> None:
        """One line per fact of the plan, without heartbeats and starts."""
        if fact.plan_id != self._plan_id:
            return
        if isinstance(fact.event, Heartbeat | Started):
            return
        when = datetime.fromtimestamp(fact.at).astimezone().strftime("%H:%M:%S.%f")[:-3]
        what = TYPE_NAMES[type(fact.event)]
        line = f"  {when}  {fact.sequence:>5}  {what:<15} {fact.task_id or '':<10} "
        said = escaped(line + _details(fact.event)).rstrip()
        self._say(shortened(said, get_terminal_size((WIDTH, 0)).columns))
        if isinstance(fact.event, Finished):
            self._at_end()


def _details(event: Event) -> str:
    match event:
        case Submitted():
            return f"{len(event.tasks)} tasks: {event.name}"
        case Claimed():
            return f"attempt {event.attempt} by {event.owner}"
        case Completed(verdict=None):
            return shortened(_told(bytes(event.output)), SAID)
        case Completed(verdict=verdict) if verdict is not None:
            word = "accepts" if verdict.pass_ else "rejects"
            return f"{word}: {shortened(bytes(verdict.feedback).decode(), SAID)}"
        case Failed():
            return f"{event.error_type}: {shortened(event.error_message, SAID)}"
        case Released():
            return event.reason
        case Finished():
            return event.status
        case _:
            return ""


def _told(output: bytes) -> str:
    """An output in words: what a command printed first, or a text; else its JSON."""
    value: object = msgspec.json.decode(output)
    if isinstance(value, dict):
        value = cast("dict[str, object]", value).get("stdout")
    return value.strip().partition("\n")[0] if isinstance(value, str) else output.decode()
