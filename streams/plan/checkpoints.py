"""Checkpoints: values that an attempt keeps, so that a later attempt need not work for them again.

The fold keeps the newest value per key until the task is COMPLETED or CANCELLED. The value itself
is in `Checkpoint.held` while the board wants it in memory, and in the log and the read models.
"""

from hashlib import blake2b

import msgspec
from msgspec import Raw

from streams.plan.events import NOTHING, Checkpointed, TokenUsage
from streams.plan.limits import MAX_CHECKPOINT_BYTES, MAX_CHECKPOINTS, MAX_CHECKPOINTS_BYTES
from streams.plan.state import Checkpoint, Plan, Task

DIGEST_BYTES = 16

_encode = msgspec.json.Encoder().encode


def over_limit(task: Task, key: str, size: int) -> str | None:
    """Why ``task`` cannot keep a value of ``size`` bytes under ``key``; None if it can."""
    kept = task.checkpoints or {}
    if size > MAX_CHECKPOINT_BYTES:
        return f"value: it has {size} bytes, at most {MAX_CHECKPOINT_BYTES} are kept under a key"
    if key not in kept and len(kept) >= MAX_CHECKPOINTS:
        return f"key: the task has {len(kept)} keys, which is as many as it may have"
    total = size_of(task) + size - (kept[key].size if key in kept else 0)
    if total > MAX_CHECKPOINTS_BYTES:
        return f"value: the task would keep {total} bytes, at most {MAX_CHECKPOINTS_BYTES} may be"
    return None


def size_of(task: Task) -> int:
    """How many bytes of values the task keeps."""
    return sum([each.size for each in task.checkpoints.values()]) if task.checkpoints else 0


def digest_of(value: Raw, usage: TokenUsage | None) -> bytes:
    """The same for the same bytes of value and the same usage, and for no others."""
    return blake2b(_encode((value, usage)), digest_size=DIGEST_BYTES).digest()


def said_before(task: Task, key: str, value: Raw, usage: TokenUsage | None) -> bool:
    """Whether the running attempt has kept just this under ``key``."""
    known = task.checkpoints.get(key) if task.checkpoints else None
    if known is None or known.attempt != task.attempt or known.size != len(value):
        return False
    return known.digest == digest_of(value, usage)


def keep(plan: Plan, task: Task, event: Checkpointed, sequence: int) -> None:
    """Make the fact at ``sequence`` the newest value of its key."""
    checkpoint = Checkpoint(
        attempt=event.attempt,
        sequence=sequence,
        size=len(event.value),
        digest=digest_of(event.value, event.token_usage),
        held=event.value,
    )
    if task.checkpoints is None:
        task.checkpoints = {}
    older = task.checkpoints.get(event.key)
    task.checkpoints[event.key] = checkpoint
    if older is not None:
        plan.outdated.append(older)
    plan.kept.append((task.ordinal, event.key, checkpoint, event.value))


def drop(plan: Plan, task: Task) -> None:
    """Forget what the task has kept."""
    for key, checkpoint in (task.checkpoints or {}).items():
        plan.outdated.append(checkpoint)
        plan.kept.append((task.ordinal, key, None, NOTHING))
    task.checkpoints = None
