"""Where the snapshots of an instance's log are kept, as the settings say."""

from collections.abc import Awaitable, Callable
from functools import partial

from service.settings.config import Settings
from streams.jetstream.snapshot_stream import SnapshotStream
from streams.snapshot_store import SnapshotStore

CONNECT_TIMEOUT_S = 30.0

OpenStore = Callable[[], Awaitable[SnapshotStore]]
"""Opens the store. Raises SnapshotUnavailable."""


def store_of(settings: Settings) -> OpenStore | None:
    """How the store is opened; None: there is none.

    An embedded log has none, because its read models lie beside it.
    """
    nats, wanted = settings.nats, settings.snapshots
    if not nats.url or not wanted.every_facts:
        return None
    return partial(
        SnapshotStream.open,
        nats.url,
        replicas=nats.replicas,
        max_bytes=wanted.max_bytes,
        timeout_s=CONNECT_TIMEOUT_S,
        access=nats.access,
    )
