"""How many bytes the log and the audit trail may hold, as the settings and this disk say."""

import shutil

from service.settings.config import Settings
from streams.jetstream.bounds import StreamBounds


def stream_bounds(settings: Settings) -> StreamBounds:
    """The bounds for a start now. Of an external server's disk nothing is known."""
    nats = settings.nats
    return StreamBounds(
        plans_bytes=nats.plans_max_bytes or None,
        plans_share=nats.plans_share,
        audit_bytes=nats.audit_max_bytes,
        disk_free=None if nats.url else shutil.disk_usage(settings.data_dir).free,
    )
