"""Each alert is inactive, fires by a real fault and resolves by its remedy, at a real Prometheus.

One Prometheus watches a few instances, each under a job of its own, so that stories go on side by
side; those of one place come one after the other.
"""

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import yaml

from tests.conftest import PrivateServer
from tests.faults import alert_faults as faults
from tests.faults.alert_faults import Place, Story
from tests.faults.delaying_proxy import DelayingProxy
from tests.faults.replicated_log import ReplicatedLog
from tests.faults.report import Report
from tests.faults.service_process import ServiceProcess
from tests.faults.watchtower import RULES, Watchtower, sooner
from tests.ports import free_port

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

FACTOR = 40.0  # by which the times of the rules are divided
FIRES_S = 150.0
RESOLVES_S = 90.0


def together(*stories: Story) -> Story:
    """Stories that do not touch each other, at the same time."""

    def told(place: Place) -> Generator[None]:
        acts = [story(place) for story in stories]
        for each in acts:
            next(each)
        yield
        for each in acts:
            next(each, None)

    return told


# By place, then in order: the alerts that one story makes fire, and the story.
STORIES: dict[str, list[tuple[tuple[str, ...], Story]]] = {
    "holdfast": [
        (("LogUnavailable",), faults.log_unavailable),
        (("LogNearlyFull",), faults.log_nearly_full),
        (("LogFull",), faults.log_full),
        (("MetricsMissing",), faults.metrics_missing),
    ],
    "claims": [
        (("ClaimStarved",), faults.claim_starved),
        (("BacklogGrowing",), faults.backlog_growing),
    ],
    "leases": [
        (("LeasesExpired",), faults.leases_expired),
        (("LeaseMarginLow",), faults.lease_margin_low),
        (("StaleWriters",), faults.stale_writers),
        (("UnfinishedBytesHigh",), faults.unfinished_bytes_high),
    ],
    "executor": [
        (("DispatchRejecting",), faults.dispatch_rejecting),
        (("HandlersOverrun",), faults.handlers_overrun),
        (("LoopLagHigh", "DaemonLate"), faults.stutter),
    ],
    "streams": [
        (("SsePushFailing",), faults.sse_push_failing),
        (("ClaimSpinning",), faults.claim_spinning),
    ],
    "views": [
        (
            ("SseResumeGaps", "BadEvents", "AuditDropped"),
            together(faults.sse_resume_gaps, faults.bad_events, faults.audit_dropped),
        ),
        (("SseReplaySlow",), faults.sse_replay_slow),
    ],
    "cluster": [(("ReplicaBehind",), faults.replica_behind)],
    "database": [
        (("ProjectionLagging",), faults.projection_lagging),
        (("ProjectionMismatch",), faults.projection_mismatch),
    ],
}
SETTINGS = {
    "executor": {
        "executor__worker__core_size": "1",
        "executor__handlers": "tests.faults.pool_handlers",
    },
    "cluster": {"nats__replicas": "3"},
    "leases": {"memory__unfinished_bytes": str(faults.UNFINISHED_BYTES)},
    "views": {"sse__buffer_events": "5", "sse__replay_batch_size": "5"},
}


class Course(msgspec.Struct, frozen=True):
    """How long an alert took to fire, and to resolve after the remedy."""

    fired_s: float
    resolved_s: float


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watchtower]:
    tower = Watchtower(tmp_path_factory.mktemp("prometheus"), FACTOR)
    yield tower
    tower.stop()


@pytest.fixture(scope="module")
def courses(
    tower: Watchtower, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, "Future[Course]"]]:
    """All stories on their way: the outcome of each, by alert."""
    outcomes: dict[str, Future[Course]] = {
        alert: Future() for place in STORIES.values() for alerts, _ in place for alert in alerts
    }
    with ThreadPoolExecutor(len(STORIES)) as many:
        for job in STORIES:
            many.submit(live_through, job, tower, tmp_path_factory.mktemp(job), outcomes)
        yield outcomes


def live_through(
    job: str, tower: Watchtower, folder: Path, outcomes: dict[str, "Future[Course]"]
) -> None:
    """The stories of one place, at an instance of its own; a failure is part of its outcome."""
    log = PrivateServer(folder / "nats")
    replicated = ReplicatedLog(folder / "nodes") if job == "cluster" else None
    proxy = DelayingProxy(replicated.url if replicated else log.url)
    service = ServiceProcess(
        folder / "data",
        nats_url=proxy.url,
        executor__instance_id=job,
        http__port=str(free_port()),  # the same after a restart, so that its series go on
        executor__worker__processes="0",  # a host whose handler runs on would be replaced
        **SETTINGS.get(job, {}),
    )
    place = Place(service, log, proxy, replicated)
    try:
        if replicated:
            replicated.start()
        service.start()
        tower.watch(job, service.url)
        for alerts, story in STORIES[job]:
            try:
                _tell(job, alerts, story, tower, place, outcomes)
            except BaseException as error:  # noqa: BLE001 - told by the test that waits for it
                _fail(alerts, outcomes, error)
    except BaseException as error:  # noqa: BLE001 - as above, for errors that cannot be sent
        for alerts, _ in STORIES[job]:
            _fail(alerts, outcomes, error)
    finally:
        place.close()
        service.stop()
        proxy.stop()
        log.stop()
        if replicated:
            replicated.stop()


def _fail(
    alerts: Sequence[str], outcomes: dict[str, "Future[Course]"], error: BaseException
) -> None:
    for alert in alerts:
        if not outcomes[alert].done():
            outcomes[alert].set_exception(error)


def _tell(
    job: str,
    alerts: Sequence[str],
    story: Story,
    tower: Watchtower,
    place: Place,
    outcomes: dict[str, "Future[Course]"],
) -> None:
    for alert in alerts:
        tower.until(job, alert, "inactive", FIRES_S)
    with closing(story(place)) as acts:
        next(acts)
        fired = {alert: tower.until(job, alert, "firing", FIRES_S) for alert in alerts}
        next(acts, None)
        for alert in alerts:
            resolved_s = tower.until(job, alert, "inactive", RESOLVES_S)
            outcomes[alert].set_result(Course(fired[alert], resolved_s))
        next(acts, None)


@pytest.mark.parametrize(
    "alert", [alert for place in STORIES.values() for alerts, _ in place for alert in alerts]
)
def test_an_alert_fires_by_its_fault_and_resolves_by_its_remedy(
    alert: str, courses: dict[str, "Future[Course]"], report: Report
) -> None:
    course = courses[alert].result(300)
    report.add(
        f"alerts (times divided by {FACTOR:g})",
        alert,
        fired_after_s=course.fired_s,
        resolved_after_s=course.resolved_s,
    )


def test_every_alert_has_a_story() -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    told = [alert for place in STORIES.values() for names, _ in place for alert in names]
    assert len(set(told)) == len(told)
    assert set(told) == alerts


def test_only_times_are_shortened() -> None:
    shortened = sooner(RULES.read_text(), 20)
    assert "for: 30s" in shortened or "for: 30000ms" in shortened
    changed = [
        (before, after)
        for before, after in zip(
            RULES.read_text().splitlines(), shortened.splitlines(), strict=True
        )
        if before != after
    ]
    assert changed
    for before, _ in changed:
        assert "[" in before or "for: " in before or "# wait" in before, before
