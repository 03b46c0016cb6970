"""Whether a snapshot may stand for the fold of the log that is there now."""

from projections.log_identity import Witness, begins_late, history_of
from projections.read_models.restore import SCHEMA
from streams.log import Log, LogState
from streams.snapshot_store import ReadModelSnapshot


async def unfitness(snapshot: ReadModelSnapshot, state: LogState, source: Log) -> str | None:
    """Why ``snapshot`` must not be used on the log ``source``, which is as ``state`` says.

    Rows of plans that were forgotten after it leave with the facts that forget them. Up to
    ``LogState.forgotten`` such facts may have left the log, so an older snapshot is refused. Raises
    LogUnavailable.
    """
    if snapshot.schema != SCHEMA.version:
        return f"it has schema {snapshot.schema}, this version needs {SCHEMA.version}"
    if other := await other_log(snapshot, state, source):
        return other
    if snapshot.sequence < state.forgotten:
        return "facts that it does not hold were forgotten meanwhile"
    return begins_late(state)


async def other_log(snapshot: ReadModelSnapshot, state: LogState, source: Log) -> str | None:
    """Why ``snapshot`` is of another log than ``source``; None: it is not. LogUnavailable."""
    if snapshot.epoch != state.epoch:
        return f"it is of the log {snapshot.epoch}, and this one is {state.epoch}"
    if snapshot.sequence > state.head:
        return f"it has reached {snapshot.sequence:,}, and the log ends at {state.head:,}"
    if snapshot.witness is None:
        return "it holds no fact that stays"
    witness = Witness(*snapshot.witness)
    history = await history_of(source, witness)
    if history == "same" or (history == "gone" and witness.sequence <= state.forgotten):
        return None
    return f"the log does not have its fact at sequence {witness.sequence:,}"
