"""`holdfast doctor` against real instances with real faults: what it finds, and when it cannot."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.ops.doctor.checkup import LONGEST_S
from tests.busy import HELD, seen_in_time
from tests.conftest import PrivateServer
from tests.faults.conftest import StartService
from tests.faults.service_process import ROOT, ServiceProcess, environment, run_holdfast, until
from tests.freezing import freeze
from tests.prepared_python import run_prepared

pytestmark = pytest.mark.faults

Json = dict[str, Any]
MARGIN_S = 15.0  # for starting Python on a busy machine; what doctor itself takes is bounded


class Diagnosis:
    """One run of the command, as a machine reads it."""

    def __init__(self, *arguments: str) -> None:
        began = time.monotonic()
        done = run_prepared("service", "doctor", "--json", *arguments, environment=environment())
        self.took_s = time.monotonic() - began
        self.code = done.returncode
        assert done.stdout, done.stderr.decode()
        self.report: Json = json.loads(done.stdout)
        assert self.report["exit_code"] == self.code

    @property
    def findings(self) -> dict[str, Json]:
        return {finding["code"]: finding for finding in self.report["findings"]}

    def answer(self, question: str) -> Json:
        (answer,) = (each for each in self.report["answers"] if each["question"] == question)
        return answer

    def part(self, name: str) -> str:
        return next(part["state"] for part in self.report["parts"] if part["name"] == name)


def diagnosed(service: ServiceProcess) -> Diagnosis:
    return Diagnosis("--data-dir", str(service.data_dir))


def is_well(seen: Diagnosis) -> bool:
    """Nothing but what a held machine causes is found, and nothing is unknown."""
    return seen.findings.keys() <= HELD and (bool(seen.findings) or seen.code == 0)


def until_found(look: Callable[[], Diagnosis], *codes: str) -> Diagnosis:
    """The first diagnosis with all of these findings."""
    seen: list[Diagnosis] = []

    def found() -> bool:
        seen[:] = [look()]
        return set(codes) <= seen[0].findings.keys()

    until(found, 30, f"{codes} are found")
    return seen[0]


def post(service: ServiceProcess, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{service.url}{path}", json=body, timeout=30)


def claim(service: ServiceProcess, owner: str, lease_s: float, wait_s: float = 0) -> Json:
    wish = {"owner": owner, "kinds": ["outside"], "lease_s": lease_s, "wait_s": wait_s}
    (claimed,) = post(service, "/v1/claims", **wish).json()["claims"]
    return claimed


def submit(service: ServiceProcess, *tasks: str) -> None:
    answer = post(
        service, "/v1/plans", id="p", tasks=[{"id": each, "kind": "outside"} for each in tasks]
    )
    assert answer.is_success, answer.text


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that stands still (SIGSTOP)."""
    freeze(pid)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture
def service(start_service: StartService) -> ServiceProcess:
    return start_service(roles="api,daemons")


def be_a_zombie(service: ServiceProcess) -> tuple[int, int]:
    """w1 loses its lease to w2 and writes all the same; answers both claims' sequences."""
    submit(service, "t")
    lost = claim(service, "w1", lease_s=0.3)
    taken = claim(service, "w2", lease_s=60, wait_s=10)
    refused = post(service, "/v1/plans/p/tasks/t/complete", owner="w1", attempt=1, output=1)
    assert refused.status_code == 409
    return lost["fencing_token"], taken["fencing_token"]


def until_audited(service: ServiceProcess) -> None:
    """Wait until SQLite has the refusal, too."""
    asked = f"{service.url}/v1/audit?event=claimed_update_guard_reject"
    until(lambda: httpx.get(asked, timeout=10).json()["items"], 10, "the refusal is audited")


def assert_tells_of_both_claims(finding: Json, lost: int, taken: int) -> None:
    (write,) = finding["evidence"]["writes"]
    assert (write["plan_id"], write["task_id"], write["status"]) == ("p", "t", "RUNNING")
    old = (write["old_owner"], write["old_attempt"], write["old_claim_sequence"])
    new = (write["new_owner"], write["new_attempt"], write["new_claim_sequence"])
    assert (old, new) == (("w1", 1, lost), ("w2", 2, taken))


@pytest.mark.timeout(90)
def test_a_healthy_instance_is_healthy_and_its_stream_is_proved_whole(
    service: ServiceProcess, *, long_faults: bool
) -> None:
    submit(service, *(f"t{n}" for n in range(20)))
    for _ in range(20):
        claimed = claim(service, "w1", lease_s=60)
        path = f"/v1/plans/p/tasks/{claimed['task_id']}"
        post(service, f"{path}/heartbeat", owner="w1", attempt=1)
        assert post(service, f"{path}/complete", owner="w1", attempt=1).is_success
    well = seen_in_time(lambda: diagnosed(service), is_well)
    assert well.findings.keys() <= HELD, well.findings
    assert well.findings or (well.code, well.report["status"]) == (0, "healthy")
    canary = well.answer("event_streams")["numbers"]["canary"]
    assert (canary["events"], canary["first"], canary["witness"]) == (42, 1, "the log")
    assert 1 < canary["resumed_after"] < canary["last"]
    assert well.answer("claiming")["numbers"]["claimed"] == 20
    if long_faults:
        # From elsewhere, knowing only the address, it is a second replay that bears witness.
        elsewhere = Diagnosis("--url", service.url, "--config", "/dev/null")
        assert elsewhere.code == 0
    # For a person it is a screenful.
    code, said = seen_in_time(
        lambda: run_holdfast("doctor", "--data-dir", str(service.data_dir)),
        lambda seen: seen[0] == 0,
    )
    assert code == 0 or any(each in said for each in HELD), said
    assert said.startswith("HEALTHY") == (code == 0)
    assert len(said.splitlines()) < 24


@pytest.mark.timeout(90)
def test_a_stale_write_and_an_abandoned_lease_are_reported_with_owners_attempts_and_sequences(
    service: ServiceProcess,
) -> None:
    lost, taken = be_a_zombie(service)
    post(service, "/v1/plans", id="q", tasks=[{"id": "u", "kind": "outside"}])
    abandoned = claim(service, "w3", lease_s=0.2)

    seen = until_found(lambda: diagnosed(service), "StaleWriters", "LeasesExpired")
    assert seen.code == 1
    assert_tells_of_both_claims(seen.findings["StaleWriters"], lost, taken)
    assert seen.findings["StaleWriters"]["runbook"] == "service/ops/RUNBOOK.md#stalewriters"
    (lease,) = seen.findings["LeasesExpired"]["evidence"]["leases"]
    told = (lease["plan_id"], lease["task_id"], lease["owner"], lease["attempt"])
    assert told == ("q", "u", "w3", 1)
    assert lease["claim_sequence"] == lease["last_sequence"] == abandoned["fencing_token"]
    assert lease["expired_for_s"] >= 5
    # What it says to run can be pasted, and shows the task.
    command = seen.findings["LeasesExpired"]["command"]
    shown = subprocess.run(["/bin/sh", "-c", command], capture_output=True, timeout=20, check=True)
    assert json.loads(shown.stdout)["owner"] == "w3"


@pytest.mark.timeout(90)
def test_a_paused_nats_server_is_named_with_its_process(service: ServiceProcess) -> None:
    nats_pid = service.nats_pid()
    assert nats_pid is not None
    with stopped(nats_pid):
        until(lambda: service.readiness()[0] != 200, 20, "the instance notices")
        seen = diagnosed(service)
        assert seen.code == 2
        assert seen.took_s < LONGEST_S + MARGIN_S
        finding = seen.findings["LogUnavailable"]
        assert finding["severity"] == "critical"
        assert finding["command"] == f"kill -CONT {nats_pid}"
        assert seen.part("log") in ("hung", "failed")
    until(lambda: service.readiness()[0] == 200, 20, "the instance is ready")
    until(lambda: diagnosed(service).code == 0, 40, "it is healthy again")


@pytest.mark.timeout(90)
def test_a_frozen_api_is_critical_and_the_log_and_sqlite_are_read_past_it(
    service: ServiceProcess, *, long_faults: bool
) -> None:
    lost, taken = be_a_zombie(service)
    until_audited(service)
    nats_pid = service.nats_pid()
    assert nats_pid is not None
    with stopped(service.pid):
        seen = diagnosed(service)
        assert seen.code == 2
        assert seen.took_s < LONGEST_S + MARGIN_S
        assert seen.part("api") == "hung"
        assert seen.findings["ApiFrozen"]["command"] == f"kill -CONT {service.pid}"
        assert_tells_of_both_claims(seen.findings["StaleWriters"], lost, taken)
        assert seen.answer("leases")["numbers"]["running"] == 1
        if not long_faults:
            return  # with both frozen only SQLite is left, as below with a dead instance
        with stopped(nats_pid):
            both = diagnosed(service)
        assert both.code == 2
        assert both.took_s < LONGEST_S + MARGIN_S
        assert both.findings["LogUnavailable"]["command"] == f"kill -CONT {nats_pid}"
        assert both.answer("leases")["numbers"]["running"] == 1


@pytest.mark.timeout(90)
def test_a_dead_instance_is_diagnosed_from_nats_and_sqlite(
    start_service: StartService, private_nats: PrivateServer, *, long_faults: bool
) -> None:
    service = start_service(nats_url=private_nats.url, roles="api,daemons")
    lost, taken = be_a_zombie(service)
    claimed = {"owner": "w3", "kinds": ["outside"], "lease_s": 0.2}
    post(service, "/v1/plans", id="q", tasks=[{"id": "u", "kind": "outside"}])
    assert post(service, "/v1/claims", **claimed).json()["claims"]
    until_audited(service)
    service.kill()
    place = ("--data-dir", str(service.data_dir), "--nats-url", private_nats.url)
    seen = until_found(lambda: Diagnosis(*place), "LeasesExpired")
    assert seen.code == 2
    down = seen.findings["ApiDown"]["evidence"]
    assert (down["pid"], down["process"], down["data_folder_held"]) == (service.pid, "gone", False)
    assert (seen.part("log"), seen.part("database")) == ("answered", "answered")
    assert_tells_of_both_claims(seen.findings["StaleWriters"], lost, taken)
    assert seen.findings["LeasesExpired"]["evidence"]["leases"][0]["owner"] == "w3"
    # The log alone will do, and so will SQLite alone; without either there is nothing to tell.
    nowhere = ("--nats-url", private_nats.url, "--data-dir", str(service.data_dir / "no"))
    if long_faults:
        alone = Diagnosis(*nowhere)
        assert alone.answer("leases")["numbers"]["running"] == 2
        assert alone.part("database") == "skipped"
    private_nats.kill()
    alone = Diagnosis(*place)
    assert alone.code == 2
    assert alone.findings["LogUnavailable"]["severity"] == "critical"
    assert alone.answer("leases")["numbers"]["running"] == 2
    assert_tells_of_both_claims(alone.findings["StaleWriters"], lost, taken)
    nothing = Diagnosis(*nowhere)
    assert (nothing.code, nothing.report["status"]) == (3, "unknown")
    assert list(nothing.findings) == ["CannotTell"]
    assert {part["name"] for part in nothing.report["parts"]} == {"api", "log", "database"}


@pytest.mark.timeout(60)
def test_a_locked_database_is_named_and_delays_no_answer(
    service: ServiceProcess, *, long_faults: bool
) -> None:
    path = service.data_dir / "readmodels.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")  # and nothing has to be written meanwhile
        seen = until_found(lambda: diagnosed(service), "DatabaseUnavailable")
        assert seen.code == 2
        assert str(path) in seen.findings["DatabaseUnavailable"]["command"]
        connection.execute("ROLLBACK")
    until(lambda: service.readiness()[0] == 200, 20, "the instance is ready")
    if long_faults:
        until(lambda: diagnosed(service).code == 0, 20, "it is healthy again")


def test_doctor_changes_nothing(tmp_path: Path, private_nats: PrivateServer) -> None:
    data = tmp_path / "nobody"
    Diagnosis("--data-dir", str(data), "--nats-url", private_nats.url)
    assert not data.exists()
    told = Diagnosis("--data-dir", str(data), "--nats-url", private_nats.url)
    assert told.part("log") == "failed"  # a server without our log is left without one


Played = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Played]:
    """Starts `holdfast demo zombie`, its folder made below this test's."""
    (tmp_path / "tmp").mkdir()
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "demo", "zombie", *arguments],
            env=environment() | {"TMPDIR": str(tmp_path / "tmp")},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def processes_of(folder: Path) -> list[str]:
    """The command lines of processes that work below a folder."""
    found: list[str] = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            command = (each / "cmdline").read_text(errors="replace")
            if str(folder) in command or str(folder) in str((each / "cwd").readlink()):
                found.append(f"{each.name} {command}")
        except OSError:
            continue
    return found


@pytest.mark.timeout(90)
def test_the_zombie_demo_shows_the_refused_write_everywhere_and_leaves_nothing(
    play: Played, tmp_path: Path
) -> None:
    told, _ = play().communicate(timeout=70)
    said = told.decode()
    assert "NOT SEEN" not in said, said
    for seen in (
        "frozen (SIGSTOP)", "the answer: 409 guard_reject", "it says how the task stands",
        'agent_task_claimed_update_guard_reject_total{op="complete"} 0 -> 1',
        "the audit trail: claimed_update_guard_reject", "the doctor: warning StaleWriters",
        "attempt 1 lost, attempt 2 completed", "All of it was seen.",
    ):  # fmt: skip
        assert seen in said, said
    assert list((tmp_path / "tmp").iterdir()) == []
    assert processes_of(tmp_path / "tmp") == []


@pytest.mark.timeout(90)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_interrupted_ends_what_it_began(
    play: Played, tmp_path: Path, number: signal.Signals, *, long_faults: bool
) -> None:
    if number is signal.SIGTERM and not long_faults:
        pytest.skip("the same way as Ctrl-C; `make test-faults` takes it")
    process = play()
    assert process.stdout is not None
    for line in process.stdout:
        if b"is frozen" in line:
            break
    assert processes_of(tmp_path / "tmp")
    process.send_signal(number)
    assert process.wait(40) == 130
    assert list((tmp_path / "tmp").iterdir()) == []
    assert processes_of(tmp_path / "tmp") == []


@pytest.mark.timeout(60)
def test_the_demo_plays_on_a_running_instance_and_stops_nothing_of_it(
    play: Played, start_service: StartService, *, long_faults: bool
) -> None:
    if not long_faults:
        pytest.skip("the same story on another stage; `make test-faults` plays it")
    service = start_service()
    told, _ = play("--url", service.url).communicate(timeout=50)
    assert b"All of it was seen." in told, told.decode()
    assert service.readiness()[0] == 200
