"""The audit trail queues entries without blocking the caller, and reports those it drops."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from threading import Thread

import msgspec
import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from projections.read_models.audit import Entry
from service.runtime.masking import KNOWN
from service.settings.config import ObservabilitySettings
from service.signals.audit.outages import Outage
from service.signals.audit.trail import LIMITS, LONGEST_DETAIL, Audit, TrailLimits
from service.signals.metrics.registry import Metrics
from streams.jetstream.audit_stream import TrailEntry
from streams.log import LogUnavailable

GOLDEN = Path(__file__).parents[1] / "contract" / "golden" / "audit"
QUICK = TrailLimits(gather_s=0.001, retry_s=0.01)
EVERYTHING = ObservabilitySettings(audit_success_log_enabled=True)


class Stream:
    """Takes entries once it is there; ``refuses`` are the events that it never takes."""

    def __init__(self) -> None:
        self.there = True
        self.asked = 0
        self.taken: dict[str, Entry] = {}
        self.refuses: set[str] = set()

    async def write(self, entries: Sequence[TrailEntry]) -> list[int | None]:
        self.asked += 1
        await asyncio.sleep(0)
        if not self.there:
            raise LogUnavailable("away")
        for each in entries:
            if each.event not in self.refuses:
                self.taken[each.id] = msgspec.json.decode(each.payload, type=Entry)
        refused = [each.event in self.refuses for each in entries]
        return [None if never else place for place, never in enumerate(refused, 1)]


class World:
    def __init__(self, stream: Stream, audit: Audit, metrics: Metrics) -> None:
        self.stream = stream
        self.audit = audit
        self.metrics = metrics

    def counted(self, name: str) -> dict[str, float]:
        shown = self.metrics.shown(name)
        assert shown is not None
        values = ((next(iter(v.labels.values())), v.value or 0.0) for v in shown.values)
        return {label: value for label, value in values if value}

    def dropped(self) -> dict[str, float]:
        return self.counted("agent.audit.dropped.total")

    async def written(self, count: int) -> list[Entry]:
        async with asyncio.timeout(20):
            while len(self.stream.taken) < count:
                await asyncio.sleep(0.01)
        return list(self.stream.taken.values())


@asynccontextmanager
async def trail(
    settings: ObservabilitySettings = EVERYTHING, close_s: float = 5, limits: TrailLimits = QUICK
) -> AsyncIterator[World]:
    """A trail that is closed at the end, as an instance closes its own."""
    stream, metrics = Stream(), Metrics()
    audit = Audit(stream, metrics, "here", lambda: 1e9, settings, limits=limits)
    running = asyncio.create_task(audit.run())
    try:
        yield World(stream, audit, metrics)
        assert not running.done(), "it must outlive every entry"
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await audit.close(close_s)


@pytest.mark.parametrize(("name", "principal"), [("v1", None), ("v1.principal", "gpu")])
def test_an_entry_is_stored_as_golden_and_read_back(name: str, principal: str | None) -> None:
    golden = (GOLDEN / f"entry.{name}.json").read_bytes()
    entry = msgspec.json.decode(golden, type=Entry)
    assert (entry.owner, entry.principal, entry.attempt) == ("gpu/1", principal, 1)
    assert msgspec.json.encode(entry) == golden


async def test_an_entry_carries_what_was_said() -> None:
    async with trail() as world:
        world.audit.emit(
            "claimed_update_guard_reject", plan_id="p", task_id="t", owner="w", attempt=1,
            expected={"owner": "w"}, actual={"owner": "v"}, trace_id="f" * 32, detail="d" * 5_000,
            principal="gpu",
        )  # fmt: skip
        (entry,) = await world.written(1)
    assert (entry.at, entry.class_, entry.instance) == (1e9, "always", "here")
    assert entry.principal == "gpu"
    assert bytes(entry.expected) == b'{"owner":"w"}'
    assert bytes(entry.actual) == b'{"owner":"v"}'
    assert len(entry.detail or "") == LONGEST_DETAIL
    assert world.counted("agent.audit.written.total") == {"claimed_update_guard_reject": 1}


async def test_an_entry_is_short_and_written_whatever_it_says() -> None:
    async with trail() as world:
        world.audit.emit(
            "claimed_update_error", owner="\udcff" * 1_000, detail="\udcff" + "d" * 100_000,
            expected={"much": "x" * 100_000}, actual=["\ud800" * 10_000],
        )  # fmt: skip
        (entry,) = await world.written(1)
    assert len(msgspec.json.encode(entry)) < 5_000
    assert (entry.detail or "").startswith(r"\udcffd")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (EVERYTHING, ["claim_acquired", "claim_reclaimed"]),
        (ObservabilitySettings(), ["claim_reclaimed"]),
        (
            ObservabilitySettings(audit_log_enabled=False, audit_success_log_enabled=True),
            [],
        ),
        (ObservabilitySettings(audit_log_enabled=False), []),
    ],
)
async def test_the_toggles_choose_the_classes(
    settings: ObservabilitySettings, told: list[str]
) -> None:
    async with trail(ObservabilitySettings()) as world:
        world.audit.apply(settings)
        for event in ("claim_acquired", "claim_reclaimed"):
            assert world.audit.wants(event) is (event in told)
            world.audit.emit(event)
    assert [entry.event for entry in world.stream.taken.values()] == told


async def test_any_thread_may_tell() -> None:
    async with trail() as world:

        def tell() -> None:
            for _ in range(100):
                world.audit.emit("claim_acquired")

        threads = [Thread(target=tell) for _ in range(8)]
        for thread in threads:
            thread.start()
        await world.written(800)
        for thread in threads:
            thread.join()
    assert len(world.stream.taken) == 800


async def test_entries_of_an_outage_of_the_log_are_written_afterwards_in_order() -> None:
    async with trail() as world:
        world.stream.there = False
        for n in range(1_500):
            world.audit.emit("execution_failed", attempt=n)
            if not n % 100:
                await asyncio.sleep(0)
        async with asyncio.timeout(20):
            while world.stream.asked < 3:
                await asyncio.sleep(0.01)
        assert world.audit.waiting == 1_500
        world.stream.there = True
        entries = await world.written(1_500)
    assert [entry.attempt for entry in entries] == list(range(1_500))
    assert world.dropped() == {}


async def test_an_overflow_is_counted_logged_once_and_costs_successes_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with capture_logs() as lines, caplog.at_level(logging.INFO, "holdfast.audit"):
        async with trail() as world:
            await overflow(world)
    records = [record for record in caplog.records if record.name == "holdfast.audit"]
    said = [line for record in records for line in record.getMessage().split("\n")]
    assert len(said) == 2 * LIMITS.waiting, "each has its line, those that are dropped, too"
    kept = [entry.event for entry in world.stream.taken.values()]
    assert kept.count("claim_acquired") == LIMITS.waiting_success
    told = [line for line in lines if line["event"] == "audit_entries_dropped"]
    assert [line["queue_full"] for line in told] == [LIMITS.waiting]


async def overflow(world: World) -> None:
    world.stream.there = False
    for event in ("claim_acquired", "execution_failed"):
        for _ in range(LIMITS.waiting):
            world.audit.emit(event)
    assert world.dropped() == {"queue_full": float(LIMITS.waiting)}
    world.stream.there = True
    await world.written(LIMITS.waiting)


async def test_what_the_stream_never_takes_is_counted_as_dropped() -> None:
    async with trail() as world:
        world.stream.refuses = {"bad_event"}
        world.audit.emit("bad_event")
        world.audit.emit("execution_failed")
        await world.written(1)
    assert world.dropped() == {"refused": 1}
    assert world.counted("agent.audit.written.total") == {"execution_failed": 1}


async def test_shutting_down_waits_for_a_bound_and_counts_the_rest() -> None:
    async with asyncio.timeout(20), trail(close_s=0.1) as world:
        world.stream.there = False
        world.audit.emit("execution_failed")
    assert world.dropped() == {"shutting_down": 1}


async def test_shutting_down_writes_all_that_was_just_noted() -> None:
    async with trail() as world:
        for _ in range(3 * LIMITS.written_together):
            world.audit.emit("execution_failed")
    assert len(world.stream.taken) == 3 * LIMITS.written_together


@pytest.mark.parametrize(
    ("event", "said"),
    [("no_such_event", {}), ("bad_event", {"expected": {1j: 1}}), ("bad_event", {"at": "x"})],
)
async def test_an_entry_that_makes_no_sense_raises_nothing(
    event: str, said: dict[str, object]
) -> None:
    async with trail() as world:
        world.audit.emit(event, **said)  # type: ignore[arg-type]
        world.audit.emit("execution_failed")
        entries = await world.written(1)
    assert entries[-1].event == "execution_failed"


async def test_an_entry_that_cannot_be_encoded_costs_none_of_those_beside_it() -> None:
    async with trail() as world:
        for trace_id in ("a" * 32, "\ud800", "b" * 32):
            world.audit.emit("execution_failed", trace_id=trace_id)
        entries = await world.written(2)
    assert [entry.trace_id for entry in entries] == ["a" * 32, "b" * 32]
    assert world.dropped() == {"invalid": 1}


async def test_an_entry_says_what_was_so_when_it_was_told() -> None:
    async with trail() as world:
        actual = {"status": "RUNNING"}
        world.audit.emit("execution_failed", actual=actual)
        actual["status"] = "FAILED"
        (entry,) = await world.written(1)
    assert bytes(entry.actual) == b'{"status":"RUNNING"}'


async def test_secrets_are_masked_in_messages_and_lines_and_other_entries_stay(
    caplog: pytest.LogCaptureFixture,
) -> None:
    KNOWN.know(["secret-of-this-audit-test"])
    told = ("before", "it was secret-of-this-audit-test", "after")
    with caplog.at_level(logging.INFO, "holdfast.audit"):
        async with trail() as world:
            for detail in told:
                world.audit.emit("execution_failed", detail=detail)
            entries = await world.written(3)
    assert [entry.detail for entry in entries] == ["before", "it was ***", "after"]
    said = [line for line in caplog.text.split("\n") if "execution_failed" in line]
    assert ["it was ***" in line for line in said] == [False, True, False]
    assert "secret-of" not in caplog.text


async def test_ids_that_cannot_be_ids_are_left_out_and_the_rest_is_written() -> None:
    async with trail() as world:
        world.audit.emit("claimed_update_error", plan_id="p", task_id="no.task > *", owner="w")
        (entry,) = await world.written(1)
    assert (entry.plan_id, entry.task_id, entry.owner) == ("p", None, "w")


async def test_entries_of_one_once_are_one_entry() -> None:
    async with trail() as world:
        for _ in range(3):
            world.audit.emit("bad_event", once="bad-event-7")
    assert list(world.stream.taken) == ["bad-event-7"]


async def test_a_line_is_written_even_while_the_log_is_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with trail() as world:
        world.stream.there = False
        with caplog.at_level(logging.INFO, "holdfast.audit"):
            world.audit.emit("task_poisoned", plan_id="p")
            async with asyncio.timeout(20):
                while not [r for r in caplog.records if r.name == "holdfast.audit"]:
                    await asyncio.sleep(0.01)


async def test_each_entry_has_a_line_that_says_what_is_stored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "holdfast.audit"):
        async with trail() as world:
            for event in ("claim_acquired", "claim_acquired", "task_poisoned", "claim_released"):
                world.audit.emit(event, owner='w", "level":"none', attempt=1, at=1.5)
            entries = await world.written(4)
    records = [record for record in caplog.records if record.name == "holdfast.audit"]
    said = [json.loads(line) for record in records for line in record.getMessage().split("\n")]
    assert [line["event"] for line in said] == [entry.event for entry in entries]
    assert [line.pop("level") for line in said] == ["info", "info", "warning", "info"]
    assert said[0] == {
        "at": "1970-01-01T00:00:01.500000Z", "event": "claim_acquired", "class": "success",
        "owner": 'w", "level":"none', "attempt": 1, "instance": "here", "logger": "holdfast.audit",
    }  # fmt: skip


async def test_what_went_wrong_does_not_wait_for_successes() -> None:
    async with trail(limits=replace(QUICK, gather_success_s=60)) as world:
        world.audit.emit("claim_acquired")
        world.audit.emit("task_poisoned")
        assert [entry.event for entry in await world.written(2)] == [
            "claim_acquired",
            "task_poisoned",
        ]
        for _ in range(LIMITS.gather_most):
            world.audit.emit("claim_acquired")
        assert len(await world.written(LIMITS.gather_most + 2)) == LIMITS.gather_most + 2


# -- outages ----------------------------------------------------------------------------------


async def test_an_outage_lasts_from_its_first_witness_to_its_last() -> None:
    async with trail() as world:
        outage = Outage(world.audit, "log_unavailable", "log_recovered")
        assert not outage.found("probe", 100.0)
        outage.missed("connection", "reset", 110.0)
        outage.missed("probe", "no answer", 111.0)
        assert outage.since == 110.0
        assert not outage.found("connection", 112.0)
        assert outage.found("probe", 114.5)
        assert not outage.found("probe", 115.5)
        began, ended = await world.written(2)
    assert (began.event, began.at) == ("log_unavailable", 110.0)
    assert (ended.event, ended.at) == ("log_recovered", 114.5)
    window = msgspec.json.decode(ended.actual)
    assert window["seconds"] == 4.5
    assert (window["from"], window["to"]) == ("1970-01-01T00:01:50Z", "1970-01-01T00:01:54.500000Z")
