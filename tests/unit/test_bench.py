"""A run of the bench says what failed, took too long or broke a bound, and measures the rest."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bench import runner
from tests.bench.child import answer_of
from tests.bench.peers.__main__ import Peer, measure
from tests.bench.peers.environments import REQUIREMENTS
from tests.bench.peers.servers import Missing
from tests.bench.report import Result


async def broken(scale: float) -> AsyncGenerator[Result]:
    yield Result(measure="b", value=0.7 * scale, unit="ratio", at_least=0.8, bound=True)


async def aimed(scale: float) -> AsyncGenerator[Result]:
    yield Result(measure="a", value=0.7 * scale, unit="ratio", at_least=0.8)


async def failing(scale: float) -> AsyncGenerator[Result]:
    raise RuntimeError(f"scale {scale}")
    yield Result(measure="f", value=1, unit="ratio")


async def endless(_: float) -> AsyncGenerator[Result]:
    await asyncio.Event().wait()
    yield Result(measure="e", value=1, unit="ratio")


async def test_a_broken_bound_fails_a_run_and_a_missed_aim_does_not() -> None:
    assert await runner.run({"broken": broken, "aimed": aimed}, 1.0) == [
        "b: the bound does not hold"
    ]
    assert await runner.run({"broken": broken, "aimed": aimed}, 2.0) == []


async def test_a_measurement_that_fails_or_does_not_end_leaves_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    measures = {"failing": failing, "endless": endless, "aimed": aimed}
    wrong = await runner.run(measures, 1.0, within_s=0.2)
    assert [each.partition(":")[0] for each in wrong] == ["failing", "endless"]
    said = capsys.readouterr()
    assert '"measure": "a"' in said.out
    assert "[3/3] aimed" in said.err


async def test_a_program_that_does_not_end_in_time_is_killed() -> None:
    with pytest.raises(TimeoutError):
        await answer_of("timeit", "-s", "import time", "time.sleep(60)", within_s=0.3)


async def test_a_peer_without_its_server_is_skipped_with_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    @contextmanager
    def nowhere() -> Generator[str]:
        raise Missing("its server is not installed")
        yield ""

    class Absent(Peer, frozen=True):
        async def __call__(self, tasks: int, workers: int) -> float:
            with self.server():
                return tasks / workers

    ways = (Absent("a peer", "none", nowhere, "nothing"),)
    assert [each async for each in measure(1.0, ways, 64)] == []
    assert capsys.readouterr().err.count("skipped: a peer: its server is not installed\n") == 1


@pytest.mark.parametrize("path", sorted(REQUIREMENTS.glob("*.txt")), ids=lambda path: path.stem)
def test_packages_of_peers_are_pinned_with_their_hashes(path: Path) -> None:
    pins = path.read_text().replace("\\\n", "").splitlines()
    assert pins
    assert all("==" in pin and "--hash=sha256:" in pin for pin in pins)
    assert (path.parent.parent / f"on_{path.stem}.py").exists()
