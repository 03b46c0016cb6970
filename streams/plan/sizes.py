"""How many bytes a plan takes in the memory of an instance: its texts, and a share for each task.

The same on every instance and after every restart, because it follows from the facts alone. Large
outputs and checkpoints are not in it: what of them is in memory has a bound of its own
(`projections.board.outputs`).
"""

from streams.plan.events import Completed, Failed, Submitted
from streams.plan.state import Plan, Result

LARGE_BYTES = 200_000  # of a plan, with 130 tasks or more: judging it all takes milliseconds
TASK_BYTES = 1_500  # a task with its spec, its last attempt and its places in tables, without texts


def submitted_bytes(spec: Submitted) -> int:
    """What a plan takes that begins now."""
    inputs = sum([len(task.input) for task in spec.tasks])
    return len(spec.context) + inputs + TASK_BYTES * (1 + len(spec.tasks))


def is_large(spec: Submitted) -> bool:
    """Whether what looks at all of a new plan belongs into a thread."""
    return submitted_bytes(spec) > LARGE_BYTES


def result_bytes(result: Result | None) -> int:
    """The text of a task's last result, as the fold keeps it."""
    match result:
        case Completed():
            return len(result.output)
        case Failed():
            return len(result.error_message)
        case None:
            return 0
        case _:
            return len(result.reason)


def plan_bytes(plan: Plan) -> int:
    """What a plan takes as it was folded so far; `Plan.bytes` keeps this number up to date."""
    tasks = plan.tasks.values()
    feedback = sum([len(task.feedback) for task in tasks])
    results = sum([result_bytes(task.result) for task in tasks if task.result is not None])
    return submitted_bytes(plan.spec) + feedback + results
