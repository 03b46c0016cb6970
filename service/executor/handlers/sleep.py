"""The kind ``sleep`` waits ``{"seconds": n}`` and stops at once when it is cancelled."""

from typing import Annotated

import msgspec

from holdfast_worker.handler import handler
from holdfast_worker.task import TaskRun

LONGEST_S = 24 * 3600


class SleepInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long to sleep."""

    seconds: Annotated[float, msgspec.Meta(ge=0, le=LONGEST_S)]


@handler("sleep", input=SleepInput)
def sleep(task: TaskRun) -> dict[str, float]:
    """Sleep; answers how long."""
    wish = msgspec.convert(task.input, SleepInput)
    if task.cancelled.wait(wish.seconds):
        task.raise_if_cancelled()
    return {"slept_s": wish.seconds}
