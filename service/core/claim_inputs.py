"""The outputs that a claimed task depends on and the checkpoints that it has kept; and their size.

They are in memory or read back from the log. An output leaves memory when no unfinished task needs
it, and both do when the board holds too many bytes. An output stands in the fact that completed its
task, whose log sequence is the task's `settled_sequence`.
"""

import asyncio
from collections.abc import Mapping, Sequence

from msgspec import Raw

from streams.log import Fact, Log, LogUnavailable
from streams.plan import checkpoints
from streams.plan.events import NOTHING, Checkpointed, Completed
from streams.plan.outputs import output_at_hand
from streams.plan.state import Plan, Task

READS_AT_ONCE = 8
CLAIM_BYTES = 700  # a claim in an answer without its texts: names, times, trace

FoundValues = Mapping[int, Raw]
"""Outputs and checkpoints by the sequence of the fact that they stand in."""


def claim_size(plan: Plan, task: Task) -> int:
    """How many bytes the claim of ``task`` takes in an answer."""
    texts = len(task.spec.input) + len(plan.spec.context) + len(task.feedback)
    texts += task.needs_bytes + checkpoints.size_of(task)
    return CLAIM_BYTES + texts + 68 * len(task.spec.depends_on)


def missing(plan: Plan, task: Task, found: FoundValues) -> list[int]:
    """The sequences of what ``task`` needs and what is neither at hand nor found."""
    if not task.spec.depends_on and not task.checkpoints:
        return []
    needed = (plan.tasks[each] for each in task.spec.depends_on if each in plan.tasks)
    away = [each.settled_sequence for each in needed if output_at_hand(each) is None]
    if task.checkpoints:
        away += [each.sequence for each in task.checkpoints.values() if each.held is None]
    return [sequence for sequence in away if sequence not in found]


async def read_back(log: Log, sequences: Sequence[int]) -> dict[int, Raw]:
    """The outputs and checkpoints in the facts at ``sequences``. Raises LogUnavailable."""
    found: dict[int, Raw] = {}
    for start in range(0, len(sequences), READS_AT_ONCE):
        some = sequences[start : start + READS_AT_ONCE]
        outputs = await asyncio.gather(*(_output_at(log, sequence) for sequence in some))
        found.update(zip(some, outputs, strict=True))
    return found


async def _output_at(log: Log, sequence: int) -> Raw:
    facts = await log.scan(sequence - 1, 1)
    fact = facts[0] if facts else None
    match fact:
        case Fact(sequence=at, event=Completed(output=output)) if at == sequence:
            return output
        case Fact(sequence=at, event=Checkpointed(value=value)) if at == sequence:
            return value
        case _:
            raise LogUnavailable(f"the output in the fact at sequence {sequence} cannot be read")


def checkpoints_of(task: Task, found: FoundValues) -> dict[str, Raw]:
    """What earlier attempts have kept, by key."""
    if not task.checkpoints:
        return {}
    return {
        key: found[each.sequence] if each.held is None else each.held
        for key, each in task.checkpoints.items()
    }


def dependencies_of(plan: Plan, task: Task, found: FoundValues) -> dict[str, Raw]:
    """The output of each dependency, null where the plan went on without one."""
    outputs: dict[str, Raw] = {}
    for name in task.spec.depends_on:
        dependency = plan.tasks.get(name)
        output = NOTHING if dependency is None else output_at_hand(dependency)
        if output is None and dependency is not None:
            output = found[dependency.settled_sequence]
        outputs[name] = NOTHING if output is None else output
    return outputs
