"""The form of an alert's story, and series that many of them are made of."""

import msgspec

from tests.integration.alert_story import Fires, Series

INSTANCE = {"instance": "a"}
OLDEST = 'agent_task_backlog_oldest_age_seconds{lane="ready"}'


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One story. ``fires`` is None where the alert must keep still."""

    alert: str
    why: str
    series: Series
    after: str
    fires: Fires | None = None


def pool(running: int, queued: int = 0, capacity: int = 8) -> Series:
    return {
        "agent_task_worker_inflight_current": f"{running}x40",
        "agent_task_worker_queue_current": f"{queued}x40",
        "agent_task_worker_capacity": f"{capacity}x40",
    }


def shares(name: str, labels: str, low: tuple[str, int], everything: int) -> Series:
    """A histogram of which a share per minute falls under ``low``'s bound."""
    bound, under = low
    comma = "," if labels else ""
    total = f"0+{everything}x40"
    return {
        f'{name}_bucket{{{labels}{comma}le="{bound}"}}': f"0+{under}x40",
        f'{name}_bucket{{{labels}{comma}le="10.0"}}': total,
        f'{name}_bucket{{{labels}{comma}le="+Inf"}}': total,
        f"{name}_count{{{labels}}}": total,
    }
