"""Metrics are declared once, move by three verbs, and stay a bounded number of series."""

import re
import sys
import threading
import tracemalloc
from itertools import product

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from service.signals.metrics.catalogue import CATALOGUE, OTHER
from service.signals.metrics.recent import Recent
from service.signals.metrics.registry import Metrics, UndeclaredMetric


def series(metrics: Metrics) -> dict[str, float]:
    """Every sample line of the text exposition, without comments."""
    text = metrics.exposition()[0].decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


@pytest.mark.parametrize(
    ("dotted", "expected"),
    [
        ("agent.task.claim.poll.total", "agent_task_claim_poll_total"),
        ("agent.task.claim.ready.count", "agent_task_claim_ready_count_total"),
        ("agent.task.execution.tokens", "agent_task_execution_tokens_total"),
        ("agent.task.claim_to_start.latency", "agent_task_claim_to_start_latency_seconds"),
        ("agent.projection.lag.seconds", "agent_projection_lag_seconds"),
        ("agent.projection.lag.events", "agent_projection_lag_events"),
        ("agent.task.worker.inflight.current", "agent_task_worker_inflight_current"),
        (
            "agent.daemon.last_success_timestamp",
            "agent_daemon_last_success_timestamp_seconds",
        ),
    ],
)
def test_names_follow_the_rule_of_the_catalogue(dotted: str, expected: str) -> None:
    assert CATALOGUE[dotted].prometheus_name == expected


def test_every_metric_without_labels_is_shown_at_zero_from_the_start() -> None:
    shown = series(Metrics())
    for metric in CATALOGUE.values():
        if not metric.labels:
            suffix = "_count" if metric.kind == "histogram" else ""
            assert shown[metric.prometheus_name + suffix] == 0


def test_closed_label_sets_are_shown_at_zero_from_the_start() -> None:
    shown = series(Metrics())
    for result, kind in product(("completed", "lost"), ("worker", "critic")):
        assert shown[f'agent_task_execution_total{{result="{result}",task_type="{kind}"}}'] == 0


def test_a_daemon_that_is_not_run_here_is_not_shown() -> None:
    assert not [name for name in series(Metrics()) if name.startswith("agent_daemon_")]


def test_the_three_verbs_move_what_they_name() -> None:
    metrics = Metrics()
    metrics.count("agent.task.claim.poll.total")
    metrics.count("agent.task.execution.tokens", 40, direction="input")
    metrics.set("agent.task.backlog.current", 7, lane="ready")
    metrics.observe("agent.loop.lag", 0.3, loop="api")
    shown = series(metrics)
    assert shown["agent_task_claim_poll_total"] == 1
    assert shown['agent_task_execution_tokens_total{direction="input"}'] == 40
    assert shown['agent_task_backlog_current{lane="ready"}'] == 7
    assert shown['agent_loop_lag_seconds_bucket{le="0.25",loop="api"}'] == 0
    assert shown['agent_loop_lag_seconds_bucket{le="1.0",loop="api"}'] == 1


def test_many_values_at_once_are_counted_as_one_by_one() -> None:
    name = "agent.task.lease.remaining_at_renew.ratio"
    bounds = CATALOGUE[name].buckets or ()
    values = [*bounds, *(bound + 0.001 for bound in bounds), 0.0, 7.0]
    singly, together = Metrics(), Metrics()
    for value in values:
        singly.observe(name, value)
    together.observe(name, *values[:3])
    together.observe(name, *values[3:])
    together.observe(name)
    assert together.exposition() == singly.exposition()


def test_an_unknown_value_of_a_label_becomes_other_and_no_new_series() -> None:
    metrics = Metrics()
    before = len(series(metrics))
    tracemalloc.start()
    held: list[int] = []
    for n in range(1000):
        metrics.count(
            "agent.task.execution.failure.total", error_type=f"oops-{n}", task_type="worker"
        )
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    shown = series(metrics)
    assert len(shown) == before
    assert held[-1] - held[len(held) // 2] < 50_000, "500 names that are kept take more"
    name = f'agent_task_execution_failure_total{{error_type="{OTHER}",task_type="worker"}}'
    assert shown[name] == 1000


@pytest.mark.parametrize(
    ("verb", "name", "labels"),
    [
        ("count", "agent.no.such.thing", {}),
        ("count", "agent.task.backlog.current", {"lane": "ready"}),
        ("set", "agent.task.claim.poll.total", {}),
        ("count", "agent.task.claim.poll.total", {"owner": "w1"}),
        ("count", "agent.task.execution.total", {"result": "completed"}),
        ("count", "agent.daemon.overrun.total", {"daemon": "nobody"}),
    ],
)
def test_what_the_catalogue_does_not_declare_raises(
    verb: str, name: str, labels: dict[str, str]
) -> None:
    with pytest.raises(UndeclaredMetric):
        getattr(Metrics(), verb)(name, 1, **labels)


def test_two_instances_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.count("agent.task.claim.poll.total")
    assert series(other)["agent_task_claim_poll_total"] == 0


def test_no_count_is_lost_between_threads() -> None:
    metrics = Metrics()

    def work() -> None:
        for _ in range(5_000):
            metrics.count("agent.task.claim.success.total")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert series(metrics)["agent_task_claim_success_total"] == 20_000


def test_quantiles_are_answered_while_another_thread_observes() -> None:
    recent = Recent()

    def work() -> None:
        for step in range(10_000):  # each value falls into a step of its own
            recent.observe(1e-5 * 1.06**step)

    thread = threading.Thread(target=work)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        thread.start()
        while thread.is_alive():
            recent.quantiles([0.99])
    finally:
        sys.setswitchinterval(before)
        thread.join()


def test_openmetrics_is_spoken_to_whom_asks_for_it() -> None:
    body, media_type = Metrics().exposition("application/openmetrics-text; version=nonsense")
    assert media_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    assert b"_created" not in body
    assert re.search(rb"^agent_task_claim_poll_total 0\.0$", body, re.MULTILINE)


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_an_exemplar_is_shown_in_openmetrics_only(
    accept: str,
) -> None:
    metrics, trace_id = Metrics(), "0af7651916cd43dd8448eb211c80319c"
    name = "agent.task.execution.failure.total"
    metrics.count(name, trace_id=trace_id, error_type="timeout", task_type="worker")
    metrics.observe("agent.task.claim_to_start.latency", 0.002, trace_id=trace_id)
    text = metrics.exposition(accept)[0].decode()
    if not accept:
        assert trace_id not in text
        assert list(text_string_to_metric_families(text))
        return
    told = {
        sample.name: sample.exemplar
        for family in openmetrics(text)
        for sample in family.samples
        if sample.exemplar
    }
    counter = told.pop("agent_task_execution_failure_total")
    histogram = told.pop("agent_task_claim_to_start_latency_seconds_bucket")
    assert not told
    assert counter.labels == histogram.labels == {"trace_id": trace_id}
    assert (counter.value, histogram.value) == (1, 0.002)


def test_one_metric_is_shown_with_its_values() -> None:
    metrics = Metrics()
    metrics.observe("agent.task.claim.execution_attempt", 2)
    shown = metrics.shown("agent.task.claim.execution_attempt")
    assert shown is not None
    (value,) = shown.values
    assert value.buckets is not None
    assert (value.count, value.sum, value.buckets["1.0"], value.buckets["4.0"]) == (1, 2, 0, 1)
    assert metrics.shown("agent.nothing") is None


def test_the_process_and_its_build_are_shown_beside_the_catalogue() -> None:
    shown = series(Metrics(version="1.2.3"))
    (build,) = [name for name in shown if name.startswith("holdfast_build_info{")]
    assert 'version="1.2.3"' in build
    assert shown["process_open_fds"] > 0
    assert shown["process_resident_memory_bytes"] > 1_000_000
    openmetrics, _ = Metrics(version="1").exposition("application/openmetrics-text")
    assert b"process_cpu_seconds_total" in openmetrics
