"""Large results are kept apart from the task that they ended, so that they can leave memory.

The fold keeps of a large result who said it and a digest of what was said: enough to answer a
repetition as a duplicate. The output itself is in `Task.held` while the board wants it there, and
in the log and the read models for ever.
"""

from functools import lru_cache
from hashlib import blake2b

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from streams.plan.canonical import canonical, same_json, same_verdict
from streams.plan.commands import Complete
from streams.plan.events import NOTHING, Completed, Failed, Released
from streams.plan.state import Plan, Result, Task

INLINE_BYTES = 256  # a digest with its bookkeeping would not be much smaller
DIGEST_BYTES = 16
LARGE_BYTES = 64 * 1024  # such a digest takes up to 100 ms: it is made off the loop, and kept
LARGE_DIGESTS = 4

_encode = msgspec.json.Encoder().encode


def keep_result(plan: Plan, task: Task, result: Result, sequence: int) -> None:
    """Make the fact at ``sequence`` the last end of the task's attempts."""
    task.digest = task.held = None
    task.output_bytes = 0
    task.result = result
    if not isinstance(result, Completed):
        return
    task.output_bytes = len(result.output)
    verdict = result.verdict
    if task.output_bytes + (len(verdict.feedback) if verdict is not None else 0) <= INLINE_BYTES:
        return
    task.digest = digest_of(result)
    task.held = result.output
    plan.outputs.append((sequence, task.ordinal, result.output))
    task.result = replace(
        result,
        output=NOTHING,
        verdict=None if verdict is None else replace(verdict, feedback=NOTHING),
    )


def digest_of(result: Completed | Complete) -> bytes:
    """The same for all spellings of the same output and verdict, and for no others."""
    content = _encode((result.output, result.verdict))
    return _large_digest(content) if len(content) > LARGE_BYTES else _digest(content)


def takes_long(output: Raw) -> bool:
    """Whether to call `digest_of` off the loop first: its answer is at hand for a while then."""
    return len(output) > LARGE_BYTES


def _digest(content: bytes) -> bytes:
    return blake2b(canonical(content), digest_size=DIGEST_BYTES).digest()


_large_digest = lru_cache(LARGE_DIGESTS)(_digest)


def same_result(said: Result, task: Task) -> bool:
    """Whether ``said`` has the content of the task's last result: a repetition is a duplicate."""
    before = task.result
    if before is None or (before.owner, before.attempt) != (said.owner, said.attempt):
        return False
    if (before.model_name, before.token_usage) != (said.model_name, said.token_usage):
        return False
    match said, before:
        case Completed(), Completed():
            if task.digest is not None:
                return task.digest == digest_of(said)
            return same_json(said.output, before.output) and same_verdict(
                said.verdict, before.verdict
            )
        case Failed(), Failed():
            # The wait before the next try depends on the state, not only on the command.
            return (said.error_type, said.error_message) == (
                before.error_type,
                before.error_message,
            )
        case Released(), Released():
            return said.reason == before.reason
        case _:
            return False


def output_at_hand(task: Task) -> Raw | None:
    """The accepted output; JSON null unless the task is COMPLETED; None: not in memory."""
    if task.status != "COMPLETED" or not isinstance(task.result, Completed):
        return NOTHING
    return task.result.output if task.digest is None else task.held
