"""Ends what would run for ever: expired leases that no claim may take over, overdue attempts."""

import asyncio

from service.core.bridge import Bridge
from service.core.core import Core
from service.daemons.daemon import Daemon
from streams.plan.decide import can_reclaim

PERIOD_S = 1.0
MAX_PER_TICK = 500


async def _step(core: Core) -> None:
    metrics, now = core.metrics, core.now()
    core.board.places.advance(now)
    expired = core.board.places.expired()
    ages = [now - task.lease_until for _, task in expired if task.lease_until is not None]
    metrics.set("agent.task.expired_running.current", len(ages))
    metrics.set("agent.task.expired_running.oldest", max(ages, default=0.0))
    if ages:
        metrics.count("agent.task.expired_running.detected.total")
    nobody_may_claim = [
        (plan.plan_id, task.spec.id)
        for plan, task in expired
        if not (plan.hands_out_tasks and can_reclaim(task, now))
    ]
    # Together, so that they are one write and a slow log does not make a long tick.
    await asyncio.gather(*(core.expire(*name) for name in nobody_may_claim[:MAX_PER_TICK]))
    overdue = [(plan.plan_id, task.spec.id) for plan, task in core.board.places.overdue(now)]
    await asyncio.gather(*(core.overrun(*name) for name in overdue[:MAX_PER_TICK]))
    metrics.set("agent.task.expired_running.last_check_timestamp", core.now())


async def _step_through(bridge: Bridge) -> None:
    try:
        await bridge.call(_step)
    except Exception:
        await bridge.call(_count_error)
        raise


async def _count_error(core: Core) -> None:
    core.metrics.count("agent.task.expired_running.check_error.total")


def lease_monitor() -> Daemon:
    """Looks at expired leases once a second."""
    return Daemon(name="lease_monitor", period_s=PERIOD_S, step=_step_through)
