"""A fleet of the kit through all its troubles at once: what was kept stays, and nothing is lost."""

import asyncio
import os
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from holdfast_worker import Client
from holdfast_worker.views import TaskView
from tests.busy import stretch
from tests.faults.service_process import ServiceProcess
from tests.integration.kit_world import Link, WorkerProgram
from tests.ports import free_port

LEASE_S = 6.0
BEAT_S = LEASE_S / 3
FENCE_S = LEASE_S * 2 / 3  # without a renewal for so long a worker stops by itself
STEP_S = 0.25
STEPS = 8
HEALTHY, KILLED, FROZEN, CUT = "healthy", "killed", "frozen", "cut"


class Scale(NamedTuple):
    """How much work there is, and how long the troubles last, in seconds."""

    tasks: int
    rounds: int
    freeze_s: float
    pause_s: float


SHORT = Scale(tasks=40, rounds=1, freeze_s=LEASE_S * 1.1, pause_s=1.0)
LONG = Scale(tasks=200, rounds=3, freeze_s=10.0, pause_s=5.0)


class Note(NamedTuple):
    """One line of a worker: a note was made, or is kept."""

    word: str
    task_id: str
    attempt: int
    number: int
    value: str


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    """An instance whose address stays through a restart; a link to it has another port."""
    port = free_port()
    settings = {"http__port": str(port), "http__allowed_hosts": "127.0.0.1"}
    service = ServiceProcess(tmp_path / "data", **settings).start()
    yield service
    service.stop()


class Fleet:
    """Workers by name; one that was killed has another of its name after it."""

    def __init__(self, service: ServiceProcess, stack: ExitStack) -> None:
        self.link = stack.enter_context(Link(service.url))
        self.programs: list[tuple[str, WorkerProgram]] = []
        self.thawed_at: list[float] = []
        self._service = service
        self._stack = stack
        for name in (HEALTHY, KILLED, FROZEN, CUT):
            self.start(name)

    def start(self, name: str) -> None:
        url = self.link.url if name == CUT else self._service.url
        program = WorkerProgram(url, name, LEASE_S)
        self.programs.append((name, self._stack.enter_context(program)))

    def of(self, name: str) -> WorkerProgram:
        """The newest of this name."""
        return next(program for said, program in reversed(self.programs) if said == name)

    def trouble(self, scale: Scale) -> float:
        """Everything at once; answers for how long the service was away."""
        for name in (HEALTHY, KILLED, FROZEN, CUT):
            self.of(name).said("kept")
        began = time.monotonic()
        self.of(FROZEN).process.send_signal(signal.SIGSTOP)
        self.link.order("cut")
        self.of(KILLED).process.send_signal(signal.SIGKILL)
        self.start(KILLED)
        away_at = time.monotonic()
        self._service.kill()
        self._service.start()
        away_s = time.monotonic() - away_at
        time.sleep(max(began + scale.freeze_s - time.monotonic(), 0))  # the length of the fault
        self.of(FROZEN).process.send_signal(signal.SIGCONT)
        self.thawed_at.append(time.time())
        self.link.order("open")
        log = self._service.nats_pid()
        assert log is not None
        os.kill(log, signal.SIGSTOP)
        time.sleep(scale.pause_s)  # the length of the fault
        os.kill(log, signal.SIGCONT)
        return away_s

    def end(self) -> dict[str, Counter[str]]:
        """What those that live have counted, by name."""
        living = [(name, each) for name, each in self.programs if each.process.poll() is None]
        for _, program in living:
            program.process.send_signal(signal.SIGTERM)
        return {name: Counter(program.ended(30)) for name, program in living}

    def notes(self) -> list[Note]:
        return [
            Note(word, task, int(attempt), int(number), value)
            for word, task, attempt, number, value in (each for each in self._said() if each[4:])
        ]

    def stops(self) -> dict[tuple[str, int], float]:
        """When handlers saw their cancellation, by task and attempt."""
        said = [each for each in self._said() if each[0] == "stopped"]
        return {(task, int(attempt)): float(at) for _, task, attempt, at in said}

    def _said(self) -> list[list[str]]:
        return [line.split() for _, program in self.programs for line in list(program.lines)]


def check_notes(notes: Sequence[Note], tasks: Sequence[TaskView]) -> None:
    """A kept note is not made again; each attempt but the last may have made one for nothing."""
    by_task: dict[str, list[Note]] = defaultdict(list)
    for note in notes:
        by_task[note.task_id].append(note)
    for task in tasks:
        made, kept = Counter[int](), dict[int, Note]()
        for note in sorted(by_task[task.task_id], key=lambda each: (each.attempt, each.number)):
            if note.word == "ran":
                made[note.number] += 1
                known = kept.get(note.number)
                assert known is None or known.attempt == note.attempt, (known, note)
            else:
                known = kept.setdefault(note.number, note)
                assert known.value == note.value, (known, note)
        assert task.output == [kept[number].value for number in range(STEPS)]
        assert sum(made.values()) - STEPS < task.attempt, (task.attempt, made)


def check_stops(fleet: Fleet, tasks: Sequence[TaskView]) -> None:
    """Where another took a lease over, its handler had stopped one heartbeat later."""
    stops, patience = fleet.stops(), stretch()
    whole = {(each.task_id, each.attempt) for each in fleet.notes() if each.number == STEPS - 1}
    for task in tasks:
        for lost, taken in pairwise(task.executions):
            name, attempt = lost["owner"].split("/")[0], (task.task_id, lost["attempt"])
            if lost["status"] != "lost" or name == KILLED or attempt in whole:
                continue
            taken_at = datetime.fromisoformat(taken["claimed_at"]).timestamp()
            thaws = [at for at in fleet.thawed_at if at > taken_at] if name == FROZEN else []
            told_at = stops.get(attempt)
            assert told_at is not None, (name, attempt)
            assert told_at - min(thaws, default=taken_at) < BEAT_S * patience, (name, attempt)


def ended_attempts(tasks: Sequence[TaskView]) -> dict[str, Counter[str]]:
    """How attempts ended by the log, by the name of their worker."""
    ends: dict[str, Counter[str]] = defaultdict(Counter)
    for task in tasks:
        for execution in task.executions:
            ends[execution["owner"].split("/")[0]][execution["status"]] += 1
    return ends


def check_counts(
    counted: dict[str, Counter[str]], ends: dict[str, Counter[str]], tasks: int
) -> None:
    """Each result is counted once, by the log and by its worker."""
    assert sum(each["completed"] for each in ends.values()) == tasks
    assert sum(each["failed"] for each in ends.values()) == 0
    for name, said in counted.items():
        assert said["claimed"] == said["completed"] + said["released"] + said["lost"], (name, said)
        if name != KILLED:  # the log has those of the one before, too
            assert said["completed"] == ends[name]["completed"], (name, said, ends[name])
            # The log may have more: a claim whose answer never came, of which no worker knows.
            assert said["lost"] <= ends[name]["lost"], (name, said, ends[name])
            assert said["released"] <= ends[name]["released"], (name, said, ends[name])


@pytest.mark.timeout(600)
async def test_a_fleet_in_trouble_keeps_its_notes_and_counts_each_result_once(
    service: ServiceProcess, *, long_faults: bool
) -> None:
    """Kills of a worker and of the service, a freeze, a cut link, and a log that pauses."""
    scale = LONG if long_faults else SHORT
    wish = {"steps": STEPS, "step_s": STEP_S}
    given: list[dict[str, Any]] = [
        {"id": f"t{n}", "kind": "notes", "input": wish, "max_lost_leases": 10}
        for n in range(scale.tasks)
    ]
    with ExitStack() as stack:
        fleet = Fleet(service, stack)
        async with Client(service.url) as client:
            plan_id = (await client.submit({"tasks": given})).plan_id
            away_s = [await asyncio.to_thread(fleet.trouble, scale) for _ in range(scale.rounds)]
            plan = await client.wait(plan_id)
            tasks = [await client.task(plan_id, each["id"]) for each in given]
            counted = await asyncio.to_thread(fleet.end)
    ends = ended_attempts(tasks)
    print(f"away {away_s}: {counted}\nthe log: {dict(ends)}")  # noqa: T201
    assert plan.status == "COMPLETED"
    check_notes(fleet.notes(), tasks)
    check_stops(fleet, tasks)
    check_counts(counted, ends, scale.tasks)
    if max(away_s) + scale.pause_s < FENCE_S - BEAT_S:
        assert ends[HEALTHY]["lost"] == counted[HEALTHY]["lost"] == 0, "a lease for no reason"
