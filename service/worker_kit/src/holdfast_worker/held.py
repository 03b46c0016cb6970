"""Gives back leases that the server granted and this worker never learned of."""

from collections.abc import Callable, Collection, Sequence

import msgspec

from holdfast_worker.lease import Key
from holdfast_worker.session import Session
from holdfast_worker.wire import query, task_path

PAGE = 200
HELD = frozenset({"CLAIMED", "RUNNING"})


class HeldTask(msgspec.Struct, frozen=True):
    """A task that the server lists under this owner."""

    plan_id: str
    task_id: str
    status: str
    attempt: int


class _Page(msgspec.Struct, frozen=True):
    items: Sequence[HeldTask]


async def release_unknown(
    session: Session, reason: str, until: Callable[[], float], also: Collection[Key] = ()
) -> None:
    """Release what this owner holds and `Session.leases` has not: the answer of a claim was lost.

    ``also`` are known, too. No claim may be under way. Raises `Unreachable` when ``until()``
    (monotonic) has passed.
    """
    path = query("/v1/tasks", {"owner": session.owner, "limit": PAGE})
    answer = await session.wire.ask("GET", path, kind=_Page, until=until)
    if not answer.ok:
        return
    for held in answer.value.items:
        key = (held.plan_id, held.task_id, held.attempt)
        if held.status not in HELD or key in session.leases or key in also:
            continue
        body = {"owner": session.owner, "attempt": held.attempt, "reason": reason}
        path = task_path(held.plan_id, held.task_id, "release")
        await session.wire.ask("POST", path, body, until=until)
