"""Question 2: when storage jitters, the fault can be located, and costs nothing but time.

Each fault is let loose on a service at work. Then the counters that moved, the audit trail's
window, what /readyz and the doctor said and when, and the tasks lost or done twice (none) are
asserted and reported. A fault that leaves no trace fails.
"""

import asyncio
import inspect
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from tests import identities
from tests.conftest import PrivateServer
from tests.faults.jitter_world import (
    Crew,
    Ground,
    Samples,
    Seen,
    Watch,
    build_slow_disk,
    can_mount,
    moved,
    small_disk,
)
from tests.faults.log_witness import assert_completed_once, attempts_in, read_log_async
from tests.faults.report import Report
from tests.faults.service_process import ServiceProcess

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not can_mount(), reason="needs root, to mount a small disk"),
]

CALM_S = 2.0
NAMED_S = 20.0
RECOVERS_S = 30.0
ENDS_S = 60.0

Start = Callable[..., ServiceProcess]
Shake = Callable[[Ground], Any]


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """What a fault must leave behind: at least this.

    ``counters`` grow; ``highs`` are gauges that rise above a bound; ``audit`` is the pair of events
    that opens and closes the window; ``check`` fails in /readyz; ``finding`` comes from the doctor.
    """

    counters: tuple[str, ...] = ()
    highs: Samples = {}
    audit: tuple[str, str] | None = None
    check: str | None = None
    finding: str | None = None


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A way to shake the ground, to let it rest, and what is to be seen of it."""

    name: str
    begin: Shake
    end: Shake
    leaves: Trace
    lasts_s: float = 5.0


DATABASE = ("database_error", "database_recovered")
LOG = ("log_unavailable", "log_recovered")


def _audited(event: str) -> str:
    return f"agent_audit_written_total{{event={event}}}"


FAULTS = (
    Fault(
        name="SQLite locked",
        begin=Ground.lock_database,
        end=Ground.unlock_database,
        leaves=Trace(
            counters=(_audited("database_error"),),
            highs={"agent_projection_lag_seconds": 2.0},
            audit=DATABASE,
            check="database",
            finding="DatabaseUnavailable",
        ),
    ),
    Fault(
        name="SQLite slow",
        begin=Ground.slow_disk,
        end=Ground.quick_disk,
        leaves=Trace(
            highs={"agent_projection_lag_seconds": 2.0},
            finding="ProjectionLagging",
        ),
        lasts_s=8.0,
    ),
    Fault(
        name="SQLite's disk full",
        begin=Ground.fill_disk,
        end=Ground.empty_disk,
        leaves=Trace(
            counters=(_audited("database_error"),),
            highs={"agent_projection_lag_seconds": 2.0},
            audit=DATABASE,
            check="database",
            finding="DatabaseUnavailable",
        ),
    ),
    Fault(
        name="NATS paused",
        begin=lambda ground: ground.server.pause(),
        end=lambda ground: ground.server.resume(),
        leaves=Trace(
            counters=(_audited("log_unavailable"),),
            audit=LOG,
            check="log",
            finding="LogUnavailable",
        ),
    ),
    Fault(
        name="NATS killed",
        begin=lambda ground: ground.server.kill(),
        end=lambda ground: ground.server.restart(),
        leaves=Trace(
            counters=(_audited("log_unavailable"),),
            audit=LOG,
            check="log",
            finding="LogUnavailable",
        ),
    ),
    Fault(
        name="NATS 300 ms late",
        begin=Ground.slow_network,
        end=Ground.quick_network,
        leaves=Trace(counters=("late appends",), finding="LogSlow"),
    ),
    Fault(
        name="the log full",
        begin=Ground.fill_log,
        end=Ground.make_room_in_log,
        leaves=Trace(
            # Every instance would say the same, and reading goes on: no case for readiness.
            counters=("agent_log_append_error_total{kind=full}",),
            finding="LogFull",
        ),
    ),
)


@pytest.fixture(scope="module")
def slow_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_slow_disk(tmp_path_factory.mktemp("preload"))


@pytest.fixture
def ground(private_nats: PrivateServer, tmp_path: Path) -> Iterator[Ground]:
    with small_disk(tmp_path / "disk") as disk:
        ground = Ground(private_nats, disk, tmp_path / "slow")
        try:
            yield ground
        finally:
            ground.stop()


@pytest.fixture
def service(
    ground: Ground, slow_disk: Path, tmp_path: Path, new_service: Start
) -> Iterator[ServiceProcess]:
    service = new_service(
        tmp_path / "disk",
        nats_url=ground.proxy.url,
        preload=str(slow_disk),
        test_slow_disk=str(tmp_path / "slow"),
    )
    yield service.start()
    service.stop()  # before its disk goes


SHORT = ("SQLite locked", "NATS paused", "NATS 300 ms late", "the log full")


@pytest.fixture
def fault(request: pytest.FixtureRequest, *, long_faults: bool) -> Fault:
    """One after the other; some only in the long form, for each takes a quarter of a minute."""
    wanted: Fault = request.param
    if not long_faults and wanted.name not in SHORT:
        pytest.skip("the long form only")
    return wanted


@pytest.mark.timeout(180)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name, indirect=True)
@pytest.mark.usefixtures("fault")  # first: who is skipped needs no ground
async def test_a_fault_below_is_located_from_outside_and_costs_only_time(
    fault: Fault, ground: Ground, service: ServiceProcess, report: Report
) -> None:
    crew = Crew(service, seed=random.SystemRandom().getrandbits(32))
    watch = Watch(service.url)
    looking = asyncio.create_task(watch.look())
    crew.start()
    try:
        await asyncio.sleep(CALM_S)
        before = await watch.metrics()
        began = watch.now
        await _do(fault.begin, ground)
        await asyncio.sleep(fault.lasts_s)
        await _named(watch, fault, began)
        ended = watch.now
        await _do(fault.end, ground)
        recovered_s = await _recovered(crew, watch, service, ended)
        async with asyncio.timeout(ENDS_S):
            await crew.finish()
        after = await watch.metrics()
        at_rest = await watch.scrape()
        window = await _window(service, fault)
    finally:
        if looking.done():
            looking.result()
        looking.cancel()
        await crew.stop()
    facts = await read_log_async(ground.server.url)
    crew.ledger.assert_in(facts)
    assert_completed_once(facts)
    attempts = attempts_in(facts)
    claims = [each.owner for many in attempts.values() for each in many]
    outside = sum(owner in crew.owners for owner in claims)
    assert identities.broken(at_rest, claimed_outside=outside, records=len(claims)) == []
    grown = moved(before, after)
    grown["late appends"] = _late_appends(before, after)
    seen = {
        "readyz": _said(watch, "readiness", fault.leaves.check, began),
        "doctor": _said(watch, "diagnoses", fault.leaves.finding, began),
    }
    report.add(
        "jitter",
        fault.name,
        tasks=len(attempts),
        tasks_lost=0,
        completed_twice=0,
        recovered_s=recovered_s,
        readyz_after_s=seen["readyz"],
        doctor_after_s=seen["doctor"],
        audit=window,
        lag_most_s=watch.most["agent_projection_lag_seconds"],
        writes_unanswered=crew.voice.unanswered,
        leases_lost=sum(each.status == "lost" for many in attempts.values() for each in many),
        readiness_said=_told(watch.readiness, began),
        doctor_said=_told(watch.diagnoses, began),
        counters={name: by for name, by in grown.items() if _tells(name)},
    )
    _assert_traces(fault, watch, grown, window, seen)


async def _named(watch: Watch, fault: Fault, began: float) -> None:
    """Let the fault go on until the doctor names it: many quick appends hide a few slow ones."""
    with suppress(TimeoutError):
        async with asyncio.timeout(NAMED_S):
            while fault.leaves.finding and not _said(
                watch, "diagnoses", fault.leaves.finding, began
            ):
                await asyncio.sleep(0.1)


async def _do(shake: Shake, ground: Ground) -> None:
    done = shake(ground) if inspect.iscoroutinefunction(shake) else asyncio.to_thread(shake, ground)
    await done


async def _recovered(crew: Crew, watch: Watch, service: ServiceProcess, since: float) -> float:
    """Seconds from the fault's end until all is well: ready, and what is written can be read."""
    asked = time.monotonic()
    async with asyncio.timeout(RECOVERS_S), httpx.AsyncClient(base_url=service.url) as client:
        await crew.speaks(asked)
        newest = max(entry.sequence for entry in crew.ledger.entries)
        while True:
            with suppress(httpx.TransportError):
                asking = {"min_sequence": str(newest), "limit": "1"}
                visible = await client.get("/v1/plans", params=asking, timeout=10)
                if visible.is_success and not watch.readiness[-1].what:
                    return watch.now - since
            await asyncio.sleep(0.05)


async def _window(service: ServiceProcess, fault: Fault) -> list[str]:
    """What the audit trail says of the trouble, the oldest first."""
    said: list[tuple[str, str]] = []
    async with httpx.AsyncClient(base_url=service.url) as client:
        for event in fault.leaves.audit or ():
            with suppress(TimeoutError):  # the trail is a projection, and a little behind
                async with asyncio.timeout(20):
                    while not (items := await _audit(client, event)):
                        await asyncio.sleep(0.1)
                said += [(item["at"], f"{event}: {item['detail']}") for item in items]
    return [detail for _, detail in sorted(said)]


async def _audit(client: httpx.AsyncClient, event: str) -> list[dict[str, Any]]:
    answer = await client.get("/v1/audit", params={"event": event})
    return answer.raise_for_status().json()["items"]


def _late_appends(before: Samples, after: Samples) -> int:
    """Appends that took more than a quarter of a second."""

    def late(samples: Samples) -> float:
        name = "agent_log_append_duration_seconds"
        return samples[f"{name}_count"] - samples[f"{name}_bucket{{le=0.25}}"]

    return round(late(after) - late(before))


def _said(watch: Watch, where: str, what: str | None, since: float) -> float | None:
    return None if what is None else watch.first(getattr(watch, where), what, since)


def _told(seen: list[Seen], since: float) -> list[str]:
    return [f"{each.at - since:.1f} s: {' '.join(each.what) or 'well'}" for each in seen]


_TELLING = ("error", "unavailable", "reject", "audit", "reclaimed", "overrun", "conflict", "late")


def _tells(name: str) -> bool:
    return any(word in name for word in _TELLING)


def _assert_traces(
    fault: Fault, watch: Watch, grown: Any, window: list[str], seen: dict[str, float | None]
) -> None:
    leaves = fault.leaves
    for name in leaves.counters:
        assert grown[name] > 0, f"{name} did not move: {grown}"
    for name, bound in leaves.highs.items():
        assert watch.most[name] > bound, (name, watch.most[name])
    if leaves.audit is not None:
        assert [line.split(":")[0] for line in window[:2]] == list(leaves.audit), window
    if leaves.check is not None:
        assert seen["readyz"] is not None, watch.readiness
    if leaves.finding is not None:
        assert seen["doctor"] is not None, watch.diagnoses
    assert not watch.readiness[-1].what, "it said that it is well again"
    assert watch.blind_scrapes == 0, "the metrics stayed visible"
