"""Asks the log how it is, what time it is there, and, after a write that failed, to take one.

Log time and readiness stay true while nothing is written. A server whose disk was full goes on
answering questions and takes no write until it is started anew, so an answer alone proves nothing.
"""

import asyncio
import secrets
from collections.abc import Callable

from service.core.core import Core
from service.daemons.daemon import Daemon, on_core
from service.signals.metrics.appends import LogObserver
from streams.log import Draft, LogFull, LogState, LogUnavailable
from streams.plan.events import Heartbeat

PERIOD_S = 0.5
ANSWER_S = 1.0  # period and answer together: what goes wrong is known within two seconds
WRITE_S = 0.3  # what a step waits for a written probe; one that takes longer goes on beside it
PROBE_PLAN = "holdfast-write-probe"  # no plan: the fold ignores what stands there
PROBE_KEPT_S = 1  # the shortest time to live that JetStream knows


class LogProbe:
    """One instance's look at the log, carried out on the API loop."""

    def __init__(self, writes: LogObserver, on_mute: Callable[[str], None]) -> None:
        """``on_mute(reason)``: the log answers questions, but took no write in a whole budget."""
        self._writes = writes
        self._on_mute = on_mute
        self._writing: asyncio.Task[None] | None = None
        self._answers = False

    async def step(self, core: Core) -> None:
        """Raise LogUnavailable when the log does not answer or does not take writes."""
        asked_at, asked = core.now(), core.clock.monotonic()
        self._answers = False
        try:
            state = await _answer(core)
            core.conditions.log_seen(state)
            self._answers = True
            core.clock.observe_answer(state.at, asked)
            await self._until_it_takes_writes(core)
        except LogUnavailable as error:
            core.conditions.log_answers("probe", str(error), asked_at)
            raise
        core.conditions.log_answers("probe", None)

    async def _until_it_takes_writes(self, core: Core) -> None:
        if self._writes.trouble is not None:
            if self._writing is None or self._writing.done():
                self._writing = asyncio.create_task(self._write(core))
            await asyncio.wait([self._writing], timeout=WRITE_S)
        if (trouble := self._writes.trouble) is not None:
            raise LogUnavailable(f"the last write failed: {trouble}")

    async def _write(self, core: Core) -> None:
        """Append a heartbeat of nothing, which expires; the appender reports it to ``writes``."""
        draft = Draft(
            plan_id=PROBE_PLAN,
            task_id=secrets.token_hex(8),
            expected=0,
            events=(Heartbeat(owner=core.instance_id, attempt=1, lease_s=PROBE_KEPT_S),),
            origin=core.self_origin,
            chatter_ttl_s=PROBE_KEPT_S,
        )
        try:
            await core.log.append(draft)
        except LogUnavailable as error:
            if self._answers:
                self._on_mute(str(error))
        except LogFull:
            return  # that is an answer


async def _answer(core: Core) -> LogState:
    try:
        async with asyncio.timeout(ANSWER_S):
            return await core.log.state()
    except TimeoutError:
        raise LogUnavailable(f"the log has not answered within {ANSWER_S:g} s") from None


def log_probe(writes: LogObserver, on_mute: Callable[[str], None]) -> Daemon:
    """Probes twice a second; see `LogProbe`."""
    step = on_core(LogProbe(writes, on_mute).step)
    return Daemon(name="log_probe", period_s=PERIOD_S, step=step, probe=True)
