"""`holdfast events` and `submit --follow` as processes, beside a server that is killed."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from service.core.core import Core
from streams.plan.events import Claimed
from tests.clients.outside import OutsidePlan
from tests.faults.service_process import ServiceProcess, environment, until
from tests.integration.sse_world import write
from tests.prepared_python import PreparedProcess

PROMPT_S = 10.0  # a busy machine is no bug
SHOWN_S = 30.0


class Command:
    """One command of the command line, running; what it says is kept in files."""

    def __init__(self, folder: Path, *arguments: str, piped: bool = False) -> None:
        folder.mkdir()
        self._out, self._err = folder / "out", folder / "err"
        self.process = self._piped(arguments) if piped else self._prepared(folder, arguments)

    def _prepared(self, folder: Path, arguments: tuple[str, ...]) -> PreparedProcess:
        return PreparedProcess(
            "service",
            *arguments,
            environment=environment(),
            folder=folder,
            output=self._out,
            errors=self._err,
        )

    def _piped(self, arguments: tuple[str, ...]) -> "subprocess.Popen[bytes]":
        with self._err.open("wb") as errors:
            return subprocess.Popen(
                [sys.executable, "-m", "service", *arguments],
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )

    @property
    def lines(self) -> list[str]:
        *whole, _ = self._out.read_text().split("\n")
        return whole

    @property
    def told(self) -> str:
        return self._err.read_text()

    @property
    def sequences(self) -> list[int]:
        """Of a command with --json."""
        return [json.loads(line)["sequence"] for line in self.lines]

    def until_told(self, words: str) -> None:
        until(lambda: words in self.told, SHOWN_S, f"{words}, but: {self.told}")

    def until_shown(self, sequence: int) -> None:
        until(lambda: self.sequences[-1:] == [sequence], SHOWN_S, f"event {sequence}: {self.told}")

    def ends(self, within_s: float = PROMPT_S) -> int:
        code = self.process.wait(within_s)
        assert "Traceback" not in self.told, self.told
        return code

    @property
    def pipe(self) -> IO[bytes]:
        """The reader's end, of a piped command."""
        assert isinstance(self.process, subprocess.Popen)
        assert self.process.stdout is not None
        return self.process.stdout

    def stop(self) -> None:
        if isinstance(self.process, subprocess.Popen):
            self.pipe.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


Run = Callable[..., Command]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Starts commands, which end with the test."""
    started: list[Command] = []

    def start(*arguments: str, piped: bool = False) -> Command:
        folder = tmp_path / f"command-{len(started)}"
        started.append(Command(folder, *arguments, piped=piped))
        return started[-1]

    yield start
    for command in started:
        command.stop()


@pytest.mark.timeout(120)
async def test_events_goes_on_after_a_crash_of_the_server_where_it_stopped(
    service: ServiceProcess, core: Core, run: Run
) -> None:
    plan = await OutsidePlan.begin(core, "p")
    following = run("events", "--after", "1", "--json", "--url", service.url)
    following.until_shown(2)
    assert following.told == f"-- connected to {service.url}, resuming after sequence 1\n"
    await plan.progress(3)
    following.until_shown(5)
    service.kill()
    following.until_told("-- not connected at sequence 5: ")
    await plan.progress(3)  # unseen
    service.start()
    await plan.progress(3)
    following.until_shown(11)
    assert following.sequences == list(range(2, 12))
    assert "-- connected again, resuming after sequence 5\n" in following.told
    assert following.told.count("not connected") == 1, "said once per break"
    following.process.send_signal(signal.SIGINT)
    assert following.ends() == 130


async def test_a_plans_own_events_end_with_the_plan(
    service: ServiceProcess, core: Core, run: Run
) -> None:
    plan = await OutsidePlan.begin(core, "p")
    following = run("events", "--plan", "p", "--url", service.url)
    until(lambda: len(following.lines) == 2, SHOWN_S, "two events")
    await plan.finish()
    assert following.ends() == 0
    shown = [line.split()[1:4] for line in following.lines]
    assert shown == [
        ["1", "plan.submitted", "p"],
        ["2", "task.claimed", "p/a"],
        ["3", "plan.finished", "p"],
    ]
    again = run("events", "--plan", "p", "--after", "3", "--url", service.url)
    assert again.ends() == 0
    assert "the plan has ended" in again.told
    unknown = run("events", "--plan", "nobody", "--url", service.url)
    assert unknown.ends() == 1
    assert unknown.told == "holdfast: not_found: there is no plan 'nobody'\n"


async def test_flags_choose_what_is_shown(service: ServiceProcess, core: Core, run: Run) -> None:
    one, two = await OutsidePlan.begin(core, "p"), await OutsidePlan.begin(core, "q")
    await two.progress()
    await two.finish()
    flags = ("--json", "--url", service.url)
    of_task = run("events", "--plan", "q", "--task", "a", *flags)
    of_type = run("events", "--after", "0", "--types", "task.claimed,plan.finished", *flags)
    of_late = run("events", "--plan", "q", "--after", "4", *flags)
    assert of_task.ends() == of_late.ends() == 0
    assert of_task.sequences == [4, 5]
    assert of_late.sequences == [5, 6]
    of_type.until_shown(6)
    assert of_type.sequences == [2, 4, 6]
    assert one.sequence == 2
    wrong = run("events", "--types", "task.done", *flags)
    assert wrong.ends() == 2
    assert "task.claimed" in wrong.told, "it says what is allowed"


async def test_ctrl_c_ends_it_at_once_connected_or_not(service: ServiceProcess, run: Run) -> None:
    connected = run("events", "--url", service.url)
    connected.until_told("connected to")
    alone = run("events", "--url", "http://127.0.0.1:1")
    alone.until_told("not connected: ")
    for following in (connected, alone):
        following.process.send_signal(signal.SIGINT)
    assert (connected.ends(), alone.ends()) == (130, 130)
    assert connected.told.count("\n") == 1


async def test_it_ends_with_the_reader_of_its_output(
    service: ServiceProcess, core: Core, run: Run
) -> None:
    plan = await OutsidePlan.begin(core, "p")
    quiet = run("events", "--after", "0", "--url", service.url, piped=True)
    busy = run("events", "--after", "0", "--url", service.url, piped=True)
    for each in (quiet, busy):
        assert b"plan.submitted" in each.pipe.readline()
    quiet.pipe.close()  # no event will come to tell it
    assert quiet.ends() == 0
    await plan.progress(1_000)
    assert b"task.claimed" in busy.pipe.readline()
    busy.pipe.close()  # right in the middle
    assert busy.ends() == 0


@pytest.mark.timeout(120)
async def test_submit_follow_tells_the_outcome_of_a_plan_that_outlives_its_server(
    service: ServiceProcess, core: Core, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({"id": "p", "tasks": [{"id": "a", "kind": "nobody-does-this"}]}))
    following = run("submit", str(file), "--follow", "--url", service.url)
    until(lambda: "plan.submitted" in "".join(following.lines), SHOWN_S, "the first event")
    service.kill()
    following.until_told("not connected at sequence 1: ")
    claimed = await write(core, "p", "a", 0, Claimed(owner="w", attempt=1, lease_s=600))
    service.start()
    plan = OutsidePlan(core, "p", 1, claimed)
    until(lambda: "task.claimed" in "".join(following.lines), SHOWN_S, "the second event")
    await plan.finish()
    assert following.ends() == 0
    events = [line.split()[0] for line in following.lines[1:] if "why: " not in line]
    assert events == ["1", "2", "3", "COMPLETED"]


async def test_a_cursor_of_another_log_is_reported(service: ServiceProcess, run: Run) -> None:
    following = run("events", "--after", "700", "--url", service.url)
    following.until_told("gap: the log ends at 0, before 700: it is another log")
