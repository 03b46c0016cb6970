"""What a service takes while it works: memory, files, disk, and the time that answers take."""

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple, Self

import httpx
import psutil

from tests.faults.report import percentile
from tests.faults.service_process import ServiceProcess
from tests.waiting import until

EVERY_S = 1.0
LOOK_S = 60.0
ASK_EVERY_S = 0.02


class Sample(NamedTuple):
    """One look: when, in MB what the processes and the folder hold, and the seconds of a scrape."""

    at: float
    service_mb: float
    server_mb: float
    files: int
    disk_mb: float
    scrape_s: float


class Levels(NamedTuple):
    """The middle of the samples of a stretch of time, and the p99 of the answers in it.

    Beside them the p99 of a fixed computation, which says how busy the machine was with others.
    """

    service_mb: float
    server_mb: float
    files: float
    disk_mb: float
    scrape_s: float
    p99_s: float
    machine_s: float


class Watch:
    """Looks once a second, and asks for one plan fifty times a second; pauses over restarts."""

    def __init__(self, service: ServiceProcess, path: str) -> None:
        """``path`` is what is asked for."""
        self._service = service
        self._path = path
        self._samples: list[Sample] = []
        self._answers: list[tuple[float, float, float]] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._look, self._ask)]

    def __enter__(self) -> Self:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for each in self._threads:
            each.join(60)

    def levels(self, since: float) -> Levels:
        """From a point of `time.monotonic` until now, or until there is anything to tell."""
        until(lambda: self._since(since), LOOK_S, "the service is looked at and answers")
        samples, answers = self._since(since) or ([], [])
        _, *middle = (median(values) for values in zip(*samples, strict=True))
        p99s = [percentile(list(each), 0.99) for each in zip(*answers, strict=True)]
        return Levels._make([*middle, *p99s])

    def _since(self, since: float) -> tuple[list[Sample], list[list[float]]] | None:
        """What has been seen since then; None while one of them is missing."""
        samples = [each for each in self._samples if each.at >= since]
        answers = [took for at, *took in self._answers if at >= since]
        return (samples, answers) if samples and answers else None

    def _look(self) -> None:
        with httpx.Client(timeout=20) as client:
            while not self._over.wait(EVERY_S):
                with suppress(httpx.HTTPError, psutil.Error, AssertionError):
                    self._samples.append(self._sample(client))

    def _sample(self, client: httpx.Client) -> Sample:
        began = time.monotonic()
        client.get(f"{self._service.url}/metrics").raise_for_status()
        scrape_s = time.monotonic() - began
        service, server = psutil.Process(self._service.pid), self._service.nats_pid()
        assert server is not None
        files = service.num_fds() + psutil.Process(server).num_fds()
        service_mb = service.memory_info().rss / 1e6
        server_mb = psutil.Process(server).memory_info().rss / 1e6
        disk_mb = disk_bytes(self._service.data_dir) / 1e6
        return Sample(began, service_mb, server_mb, files, disk_mb, scrape_s)

    def _ask(self) -> None:
        with httpx.Client(timeout=20) as client:
            while not self._over.wait(ASK_EVERY_S):
                began = time.monotonic()
                with suppress(httpx.HTTPError):
                    client.get(f"{self._service.url}{self._path}").raise_for_status()
                    took_s = time.monotonic() - began
                    self._answers.append((began, took_s, computed_s()))


def computed_s() -> float:
    """How long a fixed computation of about a millisecond took."""
    began = time.monotonic()
    sum(range(50_000))
    return time.monotonic() - began


def disk_bytes(folder: Path) -> int:
    """What its files take; one that is removed meanwhile takes nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(parent) / name).lstat().st_blocks * 512
    return total
