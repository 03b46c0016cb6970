"""Question 1: under load the metrics stay visible, their number stays bounded, and they add up."""

import asyncio
import json
import random
import sys
import time
from collections.abc import Callable
from statistics import mean
from typing import Any

import httpx
import pytest

from tests import identities
from tests.faults.jitter_world import Samples, samples_of
from tests.faults.report import Report, percentile
from tests.faults.service_process import ServiceProcess

pytestmark = pytest.mark.faults

CONNECTIONS = 64
SCRAPE_EVERY_S = 1.0
MOST_SERIES = 400
SCRAPE_P99_S = 0.1
PAIRS = 12
PAIR_S = 6
WARM_S = 2
WORTH = 0.9
GROWING = ("_total", "_bucket", "_count", "_sum")

Start = Callable[..., ServiceProcess]
Json = dict[str, Any]


class Scraper:
    """Scrapes once a second as Prometheus does, and holds each answer against the one before."""

    def __init__(self, url: str, within_s: float) -> None:
        self.took_s: list[float] = []
        self.complaints: list[str] = []
        self.last: Samples = {}
        self.last_text = ""
        self._client = httpx.AsyncClient(base_url=url, timeout=within_s)

    async def scrape_forever(self) -> None:
        while True:
            began = time.monotonic()
            await self.scrape()
            await asyncio.sleep(max(SCRAPE_EVERY_S - (time.monotonic() - began), 0))

    async def scrape(self) -> None:
        began = time.monotonic()
        try:
            answer = (await self._client.get("/metrics")).raise_for_status()
        except httpx.HTTPError as error:
            self.complaints.append(f"scrape {len(self.took_s)} failed: {error!r}")
            return
        self.took_s.append(time.monotonic() - began)
        samples = samples_of(answer.text)
        for name, value in self.last.items():
            if name not in samples:
                self.complaints.append(f"{name} has vanished")
            elif _grows(name) and samples[name] < value:
                self.complaints.append(f"{name} went down from {value} to {samples[name]}")
        self.last, self.last_text = samples, answer.text

    async def close(self) -> None:
        await self._client.aclose()


def _grows(name: str) -> bool:
    return name.partition("{")[0].endswith(GROWING)


async def random_work(url: str, seconds: float, seed: int) -> Json:
    """Run tests.faults.random_work on the service; its answer."""
    port = url.rsplit(":", 1)[1]
    work = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.random_work",
        port, str(int(seconds)), str(CONNECTIONS), str(seed),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await work.communicate()
    assert work.returncode == 0
    return json.loads(out)


@pytest.mark.timeout(300)
async def test_under_load_every_scrape_succeeds_and_the_numbers_add_up(
    start_service: Start, report: Report, *, long_faults: bool
) -> None:
    seconds = 60 if long_faults else 12
    seed = random.SystemRandom().getrandbits(31)
    service = start_service(observability__audit_success_log_enabled="true")
    # A short run beside others says how busy the machine is, not how slow we are.
    scraper = Scraper(service.url, SCRAPE_EVERY_S if long_faults else 20)
    scraping = asyncio.create_task(scraper.scrape_forever())
    seen = await random_work(service.url, seconds, seed)
    scraping.cancel()
    await at_rest(service.url)
    await scraper.scrape()
    await scraper.close()
    wrong = identities.broken(
        identities.Snapshot(scraper.last_text),
        claimed_outside=seen["claims"],
        records=await execution_records(service.url),
    )
    p99_s = percentile(scraper.took_s, 0.99)
    report.add(
        "load",
        f"{seconds} s at full speed, seed {seed}",
        **seen,
        scrapes=len(scraper.took_s),
        scrape_p99_s=p99_s,
        series=len(scraper.last),
        complaints=len(scraper.complaints),
        identities_broken=len(wrong),
    )
    assert wrong == []
    assert scraper.complaints == []
    assert len(scraper.took_s) >= seconds / SCRAPE_EVERY_S / 2
    assert len(scraper.last) <= MOST_SERIES
    if long_faults:
        assert p99_s < SCRAPE_P99_S
        assert seen["tasks"] >= 10_000


async def execution_records(url: str) -> int:
    """How many attempts the API tells of."""
    found, after = 0, None
    async with httpx.AsyncClient(base_url=url, timeout=20) as client:
        while True:
            asked = {"limit": "200"} | ({"after": after} if after else {})
            page = (await client.get("/v1/executions", params=asked)).raise_for_status().json()
            found, after = found + len(page["items"]), page["next"]
            if after is None:
                return found


async def at_rest(url: str) -> None:
    """Wait until no task is open, so that what has begun has also been counted as ended."""
    async with asyncio.timeout(30), httpx.AsyncClient(base_url=url) as client:
        for status in ("RUNNING", "READY", "REFINING"):
            while (await client.get("/v1/tasks", params={"status": status})).json()["items"]:
                await asyncio.sleep(0.05)


@pytest.mark.timeout(600)
async def test_watching_everything_costs_less_than_a_tenth(
    start_service: Start, report: Report, *, long_faults: bool
) -> None:
    """Rates of fresh processes, by turns: one process differs from the next by a tenth."""
    if not long_faults:
        pytest.skip("a measurement, which a short run on a busy machine cannot make")
    rates: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(PAIRS):
        for watched in (False, True) if seed % 2 else (True, False):
            rates[watched].append(await _rate(start_service, seed, watched=watched))
    ratio = mean(rates[True]) / mean(rates[False])
    report.add(
        "load",
        f"throughput with everything on against everything off, {PAIRS} fresh processes each",
        ratio=ratio,
        off_tasks_per_s=rates[False],
        on_tasks_per_s=rates[True],
    )
    assert ratio > WORTH


async def _rate(start_service: Start, seed: int, *, watched: bool) -> float:
    """Tasks per second of a new process, audited and scraped or neither."""
    on = str(watched).lower()
    service = start_service(
        observability__audit_log_enabled=on, observability__audit_success_log_enabled=on
    )
    scraper = Scraper(service.url, SCRAPE_EVERY_S)
    scraping = asyncio.create_task(scraper.scrape_forever()) if watched else None
    await random_work(service.url, WARM_S, seed)
    seen = await random_work(service.url, PAIR_S, seed)
    if scraping is not None:
        scraping.cancel()
    await scraper.close()
    service.stop()
    return seen["tasks_per_s"]
