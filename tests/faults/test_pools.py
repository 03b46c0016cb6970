"""When pools change, daemons keep their period and leases their heartbeats, whatever handlers do.

Lateness of daemons is what the service says of itself, tick by tick; that of heartbeats is seen
from outside, in the log: two renewals of a lease may be one period apart and so much later. A
machine that is busy makes all processes late, so a process that only sleeps says how late it is.
"""

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from streams.log import Fact
from streams.plan.events import Claimed, Completed, Heartbeat
from tests.faults.log_witness import attempts_in, read_log
from tests.faults.report import Report, percentile
from tests.faults.service_process import ServiceProcess, until
from tests.faults.sleeper import Sleeper

pytestmark = pytest.mark.faults

LEASE_S, HEARTBEAT_S = 6.0, 1.0
MOST_HEARTBEAT_S = LEASE_S / 6
# Of the period. A daemon that waits for a handler is late by periods; the short form runs beside
# other tests, which make it late by parts of one.
SHORT_DAEMON, LONG_DAEMON = 0.5, 0.1
SHORTEST_PERIOD_S = 0.5
POLL_S = 0.1
SHORT_SIZES, LONG_SIZES = (1, 8), (1, 2, 8, 64)
SHORT_S, LONG_S = 4.0, 10.0
NOISE = 10  # so many times the sleeper's own lateness is the machine's doing

Start = Callable[..., ServiceProcess]


class _Slow(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        time.sleep(float(self.path.removeprefix("/")))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def slow_url() -> Iterator[str]:
    """A server that answers after as many seconds as the path says."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Slow)
    server.daemon_threads = True
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    serving.join()
    server.server_close()


class Clerk(threading.Thread):
    """Notes the lateness of every tick, in periods, from what the service says of itself."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._client = httpx.Client(base_url=url, timeout=20)
        self._ended = threading.Event()
        self._ticks: dict[tuple[str, str], float] = {}
        self._before: set[tuple[str, str]] = set()  # the first ticks are those of the start

    def run(self) -> None:
        self.note(self._client.get("/v1/ops/status").json()["daemons"])
        self._before = set(self._ticks)
        while not self._ended.wait(POLL_S):
            self.note(self._client.get("/v1/ops/status").json()["daemons"])

    def note(self, daemons: list[dict[str, Any]]) -> None:
        for each in daemons:
            key = each["name"], str(each["last_success"])
            late = each["lateness_s"] / each["period_s"]
            self._ticks[key] = max(self._ticks.get(key, 0.0), late)

    def end(self) -> list[float]:
        self._ended.set()
        self.join()
        self._client.close()
        return [late for tick, late in self._ticks.items() if tick not in self._before]


def heartbeat_lateness(facts: list[Fact], plan_id: str) -> list[float]:
    """Per renewal, and per end of an attempt, how much later than a period after the last."""
    last: dict[str, float] = {}
    found: list[float] = []
    for fact in facts:
        if fact.plan_id != plan_id or fact.task_id is None:
            continue
        if isinstance(fact.event, Claimed):
            last[fact.task_id] = fact.at
        elif isinstance(fact.event, Heartbeat | Completed):
            found.append(max(fact.at - last[fact.task_id] - HEARTBEAT_S, 0.0))
            last[fact.task_id] = fact.at
    return found


def task_of(kind: str, seconds: float, slow_url: str) -> dict[str, Any]:
    if kind == "http":
        return {"kind": "http", "input": {"url": f"{slow_url}/{seconds}", "body": {}}}
    return {"kind": kind, "input": {"seconds": seconds}}


def run(
    service: ServiceProcess, kind: str, size: int, seconds: float, slow_url: str
) -> list[float]:
    """Let a full pool of such handlers run to its end; the daemons' lateness meanwhile."""
    tasks = [{"id": f"t{n}", **task_of(kind, seconds, slow_url)} for n in range(size)]
    httpx.post(f"{service.url}/v1/plans", json={"id": kind, "tasks": tasks}, timeout=20)
    clerk = Clerk(service.url)
    clerk.start()

    def is_over() -> bool:
        time.sleep(POLL_S)  # asking all the time would be a load of its own
        answer = httpx.get(f"{service.url}/v1/plans/{kind}", timeout=20)
        return answer.is_success and bool(answer.json()["finished_at"])

    try:
        until(is_over, seconds * 20 + 60, f"every {kind} has ended")
    finally:
        late = clerk.end()
    return late


@pytest.mark.timeout(600)
@pytest.mark.parametrize("size", LONG_SIZES)
def test_daemons_and_heartbeats_keep_time_whatever_the_pools_and_the_handlers(
    start_service: Start, slow_url: str, report: Report, *, size: int, long_faults: bool
) -> None:
    if size not in SHORT_SIZES and not long_faults:
        pytest.skip("the long form only")
    seconds, most_daemon = (LONG_S, LONG_DAEMON) if long_faults else (SHORT_S, SHORT_DAEMON)
    service = start_service(
        executor__handlers="tests.faults.pool_handlers",
        executor__web__allow_networks="127.0.0.1",
        executor__claim__lease_s=str(LEASE_S),
        executor__claim__heartbeat_s=str(HEARTBEAT_S),
        executor__worker__core_size=str(size),
        scheduling__task_executor__pool_size=str(size),
        scheduling__daemon__pool_size=str(size),
    )
    for kind in ("blocks", "burns", "http"):
        with Sleeper() as sleeper:
            daemons = run(service, kind, size, seconds, slow_url)
        facts = read_log(service.nats_url)
        heartbeats = heartbeat_lateness(facts, kind)
        attempts = [each for name, each in attempts_in(facts).items() if name[0] == kind]
        lost = sum(len(each) - 1 for each in attempts)
        daemon_p99, heartbeat_p99 = percentile(daemons, 0.99), percentile(heartbeats, 0.99)
        report.add(
            "pools",
            f"{kind}, pools of {size}",
            daemon_lateness_p99_periods=daemon_p99,
            ticks=len(daemons),
            heartbeat_lateness_p99_s=heartbeat_p99,
            heartbeats=len(heartbeats),
            leases_lost=lost,
            sleeper_p99_s=sleeper.p99_s,
            sleeper_worst_s=sleeper.worst_s,
        )
        noise_s = NOISE * sleeper.p99_s
        assert lost == 0
        assert heartbeat_p99 <= max(MOST_HEARTBEAT_S, noise_s)
        assert daemon_p99 <= max(most_daemon, noise_s / SHORTEST_PERIOD_S)
