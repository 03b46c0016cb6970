"""The outputs that a claimed task depends on, in memory or read back from the log; and their size.

An output leaves memory when no unfinished task needs it, and when the board holds too many bytes.
It stands in the fact that completed its task, whose log sequence is the task's `settled_sequence`.
"""

import asyncio
from collections.abc import Mapping, Sequence

from msgspec import Raw

from streams.log import Fact, Log, LogUnavailable
from streams.plan.events import NOTHING, Completed
from streams.plan.outputs import output_at_hand
from streams.plan.state import Plan, Task

READS_AT_ONCE = 8
CLAIM_BYTES = 700  # a claim in an answer without its texts: names, times, trace

Found = Mapping[int, Raw]
"""Outputs by the sequence of the fact that they stand in."""


def claim_size(plan: Plan, task: Task) -> int:
    """How many bytes the claim of ``task`` takes in an answer."""
    texts = len(task.spec.input) + len(plan.spec.context) + len(task.feedback)
    return CLAIM_BYTES + texts + task.needs_bytes + 68 * len(task.spec.depends_on)


def missing(plan: Plan, task: Task, found: Found) -> list[int]:
    """The sequences of the outputs that ``task`` needs and that are neither at hand nor found."""
    needed = (plan.tasks[each] for each in task.spec.depends_on if each in plan.tasks)
    return [
        each.settled_sequence
        for each in needed
        if output_at_hand(each) is None and each.settled_sequence not in found
    ]


async def read_back(log: Log, sequences: Sequence[int]) -> dict[int, Raw]:
    """The outputs in the facts at ``sequences``. Raises LogUnavailable."""
    found: dict[int, Raw] = {}
    for start in range(0, len(sequences), READS_AT_ONCE):
        some = sequences[start : start + READS_AT_ONCE]
        outputs = await asyncio.gather(*(_output_at(log, sequence) for sequence in some))
        found.update(zip(some, outputs, strict=True))
    return found


async def _output_at(log: Log, sequence: int) -> Raw:
    facts = await log.scan(sequence - 1, 1)
    fact = facts[0] if facts else None
    if isinstance(fact, Fact) and fact.sequence == sequence and isinstance(fact.event, Completed):
        return fact.event.output
    raise LogUnavailable(f"the output in the fact at sequence {sequence} cannot be read")


def dependencies_of(plan: Plan, task: Task, found: Found) -> dict[str, Raw]:
    """The output of each dependency, null where the plan went on without one."""
    outputs: dict[str, Raw] = {}
    for name in task.spec.depends_on:
        dependency = plan.tasks.get(name)
        output = NOTHING if dependency is None else output_at_hand(dependency)
        if output is None and dependency is not None:
            output = found[dependency.settled_sequence]
        outputs[name] = NOTHING if output is None else output
    return outputs
