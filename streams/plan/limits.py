"""The bounds of stored facts: a message beyond them is a bad fact.

The boundaries (`service.http.schemas`, the executor) accept no more than this, so nothing that was
accepted is ever refused by the fold. Without bounds one message published by hand could break what
shows, counts or adds up facts: a lease of ``1e300`` seconds ends at no date.
"""

from typing import Annotated

from msgspec import Meta

LARGEST = 2**63 - 1  # the largest integer of SQLite
MAX_TASKS = 10_000
MAX_LEASE_S = 12 * 3600  # heartbeats stay in the log for 24 h, which must outlive any lease
MAX_SECONDS = 7 * 24 * 3600
DEFAULT_LEASE_S = 15.0
DEFAULT_TIMEOUT_S = 120.0
MAX_CHECKPOINT_BYTES = 64 * 1024  # of one value
MAX_CHECKPOINTS = 256  # keys of a task
MAX_CHECKPOINTS_BYTES = 1024 * 1024  # values of a task
MAX_SILENT = 10  # lost leases of a task that cost nothing, because their owners never reported

Name = Annotated[str, Meta(max_length=256)]
Text = Annotated[str, Meta(max_length=16_384)]
PlanLabels = Annotated[dict[Name, Name], Meta(max_length=64)]
NameList = Annotated[tuple[Name, ...], Meta(max_length=MAX_TASKS)]
Priority = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
AttemptNumber = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Budget = Annotated[int, Meta(ge=0, le=1_000)]
Quorum = Annotated[int, Meta(ge=1, le=MAX_TASKS)]
TokenCount = Annotated[int, Meta(ge=0, le=LARGEST)]
LeaseS = Annotated[float, Meta(gt=0, le=MAX_LEASE_S)]
TimeoutS = Annotated[float, Meta(gt=0, le=MAX_SECONDS)]
DelayS = Annotated[float, Meta(ge=0, le=MAX_SECONDS)]

FORGOTTEN_S = 7 * 24 * 3600.0  # from a plan's `forgotten` until its id can be used again
