"""The audit of an outage: when it began, when it was over, and everything told meanwhile."""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx
import pytest

from tests.conftest import PrivateServer
from tests.faults.service_process import ServiceProcess, until
from tests.scrape import scraped

pytestmark = pytest.mark.faults

AWAY_S = 3.0
Json = dict[str, Any]


def entries(service: ServiceProcess, **filters: str) -> list[Json]:
    answer = httpx.get(f"{service.url}/v1/audit", params={"limit": "200", **filters}, timeout=10)
    return answer.raise_for_status().json()["items"]


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize("fault", ["killed", "paused"])
def test_an_outage_of_the_log_is_audited_with_its_window_and_nothing_is_dropped(
    new_service: Callable[..., ServiceProcess], private_nats: PrivateServer, fault: str
) -> None:
    service = new_service(nats_url=private_nats.url, roles="api,daemons").start()
    with httpx.Client(base_url=service.url, timeout=30) as client:
        plan = {"id": "p", "tasks": [{"id": "t", "kind": "k"}]}
        client.post("/v1/plans", json=plan).raise_for_status()
        began = time.time()
        (private_nats.kill if fault == "killed" else private_nats.pause)()
        until(lambda: service.readiness()[0] == 503, what="the outage is seen")
        # Refused by the state alone: no question to the log can be answered.
        body = {"owner": "w", "attempt": 1}
        answer = client.post("/v1/plans/p/tasks/t/complete", json=body)
        assert answer.status_code == 503
        time.sleep(max(began + AWAY_S - time.time(), 0))  # the outage's length is the point
        (private_nats.restart if fault == "killed" else private_nats.resume)()
        ended = time.time()
        until(lambda: entries(service, event="log_recovered"), 15, "the recovery is audited")
    (gone,) = entries(service, event="log_unavailable")
    (back,) = entries(service, event="log_recovered")
    window = back["actual"]
    assert moment(gone["at"]) == pytest.approx(began, abs=1.6)
    assert moment(window["from"]) == pytest.approx(moment(gone["at"]), abs=0.001)
    assert moment(window["to"]) == pytest.approx(ended, abs=2.5)
    assert window["seconds"] == pytest.approx(ended - began, abs=3)
    (failed,) = entries(service, event="claimed_update_error", plan_id="p")
    assert "LogUnavailable" in failed["detail"]
    assert scraped(service.url).sum("agent_audit_dropped_total") == 0
    written = scraped(service.url).sum("agent_audit_written_total")
    assert written == len(entries(service))
