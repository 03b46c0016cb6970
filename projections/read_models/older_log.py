"""Refuses a log that ends before what was folded from it: a backup that is older than the rows.

Served from such a log, plans that were acknowledged would be gone without a word, and attempts
would be handed out that others had already. An operator decides that, and not a start.
"""

from projections.log_identity import is_same_time
from projections.read_models.database import Database, ReadModelCheckpoint
from streams.log import Fact, Log, LogReset, LogState

_NEWEST_PLAN = """SELECT first_sequence, plan_id, created_at FROM plans
WHERE first_sequence <= ? ORDER BY first_sequence DESC LIMIT 1"""


class LogIsOlder(LogReset):
    """The log is an older backup; the message says of what, and what an operator can do."""


async def refuse_older(
    database: Database, checkpoint: ReadModelCheckpoint, state: LogState, source: Log
) -> None:
    """Raise LogIsOlder if the rows have facts that ``source``, whose they are, has not.

    Raises DatabaseUnavailable, LogUnavailable.
    """
    if checkpoint.sequence <= state.head:
        return
    is_same = checkpoint.epoch == state.epoch
    if is_same or await _shares_history(database, state.head, source):
        raise LogIsOlder(
            f"the log ends at sequence {state.head} (epoch {state.epoch}) and the read models "
            f"have reached {checkpoint.sequence} (epoch {checkpoint.epoch}): the log is an older "
            "backup, and facts that were acknowledged are not in it. Restore a newer backup; or, "
            "to go on without them, make the read models anew with `holdfast rebuild`"
        )


async def _shares_history(database: Database, head: int, source: Log) -> bool:
    """Whether the newest plan that the rows have up to ``head`` stands in the log as well."""
    newest = await database.read(_NEWEST_PLAN, (head,), lambda _, row: row)
    for sequence, plan_id, created_at in newest:
        for fact in await source.scan(sequence - 1, 1):
            is_there = isinstance(fact, Fact) and (fact.sequence, fact.plan_id) == (
                sequence,
                plan_id,
            )
            return is_there and is_same_time(fact.at, created_at)
    return False
