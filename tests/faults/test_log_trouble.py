"""When the log is gone: writes fail in time, reads go on, and it heals by itself."""

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

import httpx
import pytest

from tests.busy import stretch
from tests.conftest import PrivateServer
from tests.faults.log_witness import assert_completed_once, attempts_in, read_log
from tests.faults.service_process import ServiceProcess, run_holdfast, until

pytestmark = pytest.mark.faults

WRITE_ANSWER_S = 15.0
READ_ANSWER_S = 1.0
HEALED_S = 15.0
GIVES_UP_S = 30.0  # service.app.CONNECT_TIMEOUT_S, which this test has to outwait

Start = Callable[..., ServiceProcess]
Json = dict[str, Any]


class Hopeless(NamedTuple):
    """An instance without a log: its process, the log it waits for, and since when."""

    service: ServiceProcess
    nats_url: str
    since: float


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port on which another process listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.fixture(scope="module", autouse=True)
def hopeless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hopeless]:
    """An instance whose log never comes; it tries while the other tests run."""
    folder = tmp_path_factory.mktemp("hopeless") / "data"
    with socket.socket() as nobody:  # bound, so that no other process gets it, and not listening
        nobody.bind(("127.0.0.1", 0))
        url = f"nats://127.0.0.1:{nobody.getsockname()[1]}"
        service = ServiceProcess(folder, nats_url=url)
        service.launch()
        yield Hopeless(service, url, time.monotonic())
        service.stop()


# -- at start ---------------------------------------------------------------------------------


def test_a_start_waits_for_a_log_that_comes_up(
    new_service: Start, private_nats: PrivateServer
) -> None:
    private_nats.kill()
    service = new_service(nats_url=private_nats.url, roles="api,daemons")
    service.launch()
    until(lambda: service.output or _has_started(service), 20, "the service is on its way")
    private_nats.restart()
    service.await_ready()


def _has_started(service: ServiceProcess) -> bool:
    return (service.data_dir / "holdfast.lock").exists()


@pytest.mark.parametrize("key", ["http", "nats"])
def test_a_busy_port_is_named_with_the_setting_that_moves_it(
    new_service: Start, taken_port: int, key: str
) -> None:
    service = new_service(**{f"{key}__port": str(taken_port)})
    service.launch()
    assert service.wait() == 3
    assert str(taken_port) in service.output
    assert f"{key}.port" in service.output
    assert f"HOLDFAST_{key.upper()}__PORT" in service.output
    assert "Traceback" not in service.output


# -- while running ----------------------------------------------------------------------------


class Outage:
    """A running service whose log is taken away and given back."""

    def __init__(self, service: ServiceProcess, nats: PrivateServer) -> None:
        self.service = service
        self.nats = nats
        self.client = httpx.Client(base_url=service.url, timeout=2 * WRITE_ANSWER_S)

    def submit(self, plan_id: str, kind: str = "outside") -> httpx.Response:
        tasks = [{"id": name, "kind": kind, "max_lost_leases": 100} for name in ("a", "b", "c")]
        tasks.append({"id": "end", "kind": "echo", "depends_on": ["a", "b", "c"]})
        return self.client.post("/v1/plans", json={"id": plan_id, "tasks": tasks})

    def claim(self, lease_s: float = 3) -> httpx.Response:
        wish = {"owner": "w", "kinds": ["outside"], "lease_s": lease_s}
        return self.client.post("/v1/claims", json=wish)

    def own(self, word: str, lease: Json, **said: object) -> httpx.Response:
        path = f"/v1/plans/{lease['plan_id']}/tasks/{lease['task_id']}/{word}"
        return self.client.post(path, json={"owner": "w", "attempt": lease["attempt"], **said})

    def assert_log_is_named(self) -> None:
        began = time.monotonic()
        until(lambda: self.service.readiness() == (503, ["log"]), what="readiness names it")
        print(f"/readyz named the log after {time.monotonic() - began:.2f} s")  # noqa: T201

    def assert_reads_go_on(self, plan_id: str) -> None:
        for path in (
            f"/v1/plans/{plan_id}", f"/v1/plans/{plan_id}/tasks/a", "/v1/plans", "/v1/tasks",
            "/v1/executions", "/v1/ops/status", "/healthz", "/metrics",
        ):  # fmt: skip
            began = time.monotonic()
            assert self.client.get(path).status_code == httpx.codes.OK, path
            assert time.monotonic() - began < READ_ANSWER_S * stretch(), path

    def assert_writes_say_so(self, lease: Json) -> None:
        writes: dict[str, Callable[[], httpx.Response]] = {
            "submit": lambda: self.submit("meanwhile"),
            "claim": self.claim,
            "heartbeat": lambda: self.own("heartbeat", lease),
            "complete": lambda: self.own("complete", lease, output="x"),
            "pause": lambda: self.client.post("/v1/plans/p/pause", json={}),
        }
        began = time.monotonic()
        with ThreadPoolExecutor(len(writes)) as many:
            answers = {name: many.submit(write) for name, write in writes.items()}
        for name, each in answers.items():
            answer = each.result()
            assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE, (name, answer.text)
            assert answer.json()["code"] == "log_unavailable", name
            assert int(answer.headers["retry-after"]) >= 1
        took_s = time.monotonic() - began
        print(f"writes were answered 503 within {took_s:.2f} s")  # noqa: T201
        assert took_s < WRITE_ANSWER_S

    def until_healed(self) -> None:
        began = time.monotonic()
        until(lambda: self.service.readiness() == (200, []), HEALED_S, "it is ready again")
        print(f"ready {time.monotonic() - began:.2f} s after the log was back")  # noqa: T201


@pytest.fixture
def outage(start_service: Start, private_nats: PrivateServer) -> Iterator[Outage]:
    outage = Outage(start_service(nats_url=private_nats.url), private_nats)
    with outage.client:
        yield outage
    private_nats.resume()


def kill(nats: PrivateServer) -> None:
    nats.kill()


def pause(nats: PrivateServer) -> None:
    nats.pause()


def restart(nats: PrivateServer) -> None:
    nats.restart()


def resume(nats: PrivateServer) -> None:
    nats.resume()


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("lose", "give_back"), [(kill, restart), (pause, resume)])
def test_a_lost_log_is_reported_survived_and_healed_without_a_restart(
    outage: Outage,
    lose: Callable[[PrivateServer], None],
    give_back: Callable[[PrivateServer], None],
) -> None:
    service, pid = outage.service, outage.service.pid
    outage.submit("p").raise_for_status()
    (lease,) = outage.claim(lease_s=600).json()["claims"]
    lose(outage.nats)
    outage.assert_log_is_named()
    outage.assert_reads_go_on("p")
    outage.assert_writes_say_so(lease)
    outage.assert_reads_go_on("p")
    give_back(outage.nats)
    outage.until_healed()
    # What got a 503 may safely be said again, and the same plan ends.
    assert outage.own("complete", lease, output="x").status_code == httpx.codes.OK
    outage.submit("meanwhile").raise_for_status()
    outage.client.post("/v1/plans/p/resume", json={}).raise_for_status()
    finish(outage, "p")
    finish(outage, "meanwhile")
    assert service.pid == pid
    assert service.exit_code is None
    facts = read_log(outage.nats.url)
    assert_completed_once(facts)
    attempts_in(facts)
    code, said = run_holdfast(
        "rebuild", "--verify", data_dir=str(service.data_dir), nats__url=outage.nats.url
    )
    assert (code, "equal:" in said) == (0, True), said


def finish(outage: Outage, plan_id: str) -> None:
    """Claim and complete what is left of the plan, until it is closed."""

    def is_over() -> bool:
        for lease in outage.claim().raise_for_status().json()["claims"]:
            outage.own("complete", lease, output="x").raise_for_status()
        return bool(outage.client.get(f"/v1/plans/{plan_id}").json()["finished_at"])

    # A claim whose outcome is unknown may hold its lease until that has expired.
    until(is_over, 30, f"plan {plan_id} ends")


@pytest.mark.timeout(120)
def test_a_short_stall_costs_time_and_nothing_else(outage: Outage) -> None:
    """The log stands still while many speak; none is answered 2xx before it goes on, then all."""
    outage.submit("p").raise_for_status()
    leases = [outage.claim().json()["claims"][0] for _ in range(3)]
    outage.nats.pause()
    with httpx.Client(base_url=outage.service.url, timeout=0.3) as hasty:
        for lease in leases:
            path = f"/v1/plans/p/tasks/{lease['task_id']}/complete"
            # On a busy machine the stall is longer than a log may be silent, and that is said.
            with suppress(httpx.ReadTimeout):
                answer = hasty.post(path, json={"owner": "w", "attempt": 1, "output": "x"})
                assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
    outage.nats.resume()
    for lease in leases:
        answer = outage.own("complete", lease, output="x").raise_for_status().json()
        assert answer["status"] in ("accepted", "duplicate")
    finish(outage, "p")
    facts = read_log(outage.nats.url)
    assert_completed_once(facts)
    attempts_in(facts)


@pytest.mark.timeout(90)
def test_a_start_without_a_log_tries_for_a_while_and_then_says_which_one_is_missing(
    hopeless: Hopeless,
) -> None:
    service = hopeless.service
    still_trying = service.exit_code is None
    code = service.wait(2 * GIVES_UP_S)
    assert still_trying or time.monotonic() - hopeless.since > GIVES_UP_S, "it gave up at once"
    assert code == 3
    *before, last = service.output.splitlines()
    assert any("waiting_for_log" in line for line in before)
    assert last.startswith("holdfast: ")
    assert hopeless.nats_url in last
    assert "Traceback" not in service.output
