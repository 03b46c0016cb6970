"""What pages cost that lie open while nothing happens.

What a page asks is recorded in a real browser, one for each screen at the same time. Then clients
hold an event stream each and send what was recorded, at the same pace and from any point of it.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack

import httpx

from tests.bench import bed, sse_bed
from tests.bench.report import Result, progress
from tests.clients.browser import Browser

PAGES = 100
SCREENS = ("plans", "plans/p", "health")
ALONE_S = 15.0
SETTLE_S = 60.0  # after which an idle page asks at its slowest
WATCH_S = 60.0  # twice its slowest period, so that recordings repeat
REPLAY_S = 45.0
BEGIN_S = 5.0  # until all clients ask

REQUESTS = """
return performance.getEntriesByType('resource')
  .filter((each) => each.name.includes('/v1/') && each.startTime > arguments[0])
  .map((each) => [each.startTime, new URL(each.name).pathname + new URL(each.name).search]);
"""

# What Chromium sends beside `Host`.
HEADERS = {
    "sec-ch-ua-platform": '"Linux"',
    "user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "HeadlessChrome/140.0.0.0 Safari/537.36",
    "sec-ch-ua": '"Chromium";v="140", "Not=A?Brand";v="24", "HeadlessChrome";v="140"',
    "sec-ch-ua-mobile": "?0",
    "accept": "*/*",
    "sec-fetch-site": "same-origin",
    "sec-fetch-mode": "cors",
    "sec-fetch-dest": "empty",
    "accept-encoding": "gzip, deflate, br, zstd",
    "accept-language": "en-US,en;q=0.9",
}

Sent = list[tuple[float, str]]
"""When a page asked, in ms since it was opened, and for what."""


async def measure(scale: float) -> AsyncGenerator[Result]:
    """The CPU of a service whose pages lie open, for each screen."""
    with bed.nats() as server:
        async with sse_bed.service(server.url) as process:
            await _submit_waiting_plan(process.url)
            cost = sse_bed.Cost(process.pid)
            progress(f"page: the service alone, {ALONE_S:g} s")
            await asyncio.sleep(ALONE_S)
            alone = cost.busy
            recorded = await _recorded(process.url)
            pages = max(int(PAGES * scale), 10)
            for screen, sent in recorded.items():
                progress(f"page: {pages} pages of {screen}, {BEGIN_S + REPLAY_S:g} s")
                busy = await _replayed(process, sent, pages)
                yield Result(
                    measure=f"{pages} idle pages ({screen}): CPU of the service",
                    value=(busy - alone) * 100,
                    unit="% of core",
                    at_most=2,
                    seen={
                        "requests_per_page_per_min": len(sent) / WATCH_S * 60,
                        "alone": alone * 100,
                    },
                )


async def _submit_waiting_plan(url: str) -> None:
    """The plan whose page lies open: no worker takes its tasks."""
    tasks = [{"id": f"t{n}", "kind": "unclaimed"} for n in range(20)]
    async with httpx.AsyncClient(base_url=url) as client:
        (await client.post("/v1/plans", json={"id": "p", "tasks": tasks})).raise_for_status()


async def _recorded(url: str) -> dict[str, Sent]:
    """What each screen asks when nothing happens."""
    with ExitStack() as stack:
        browsers = {
            screen: await asyncio.to_thread(stack.enter_context, Browser()) for screen in SCREENS
        }
        for screen, browser in browsers.items():
            await asyncio.to_thread(browser.open, f"{url}/#/{screen}")
        progress(f"page: what idle pages ask, {SETTLE_S + WATCH_S:g} s")
        await asyncio.sleep(SETTLE_S + WATCH_S)
        return {
            screen: await asyncio.to_thread(browser.run, REQUESTS, SETTLE_S * 1e3)
            for screen, browser in browsers.items()
        }


async def _replayed(process: sse_bed.ServiceProcess, sent: Sent, pages: int) -> float:
    """The share of a core that the service takes while so many pages lie open."""
    crowd = sse_bed.Generator("sse_crowd", sse_bed.port_of(process), "/v1/events", pages)
    async with crowd, asyncio.TaskGroup() as group:
        ends = time.monotonic() + BEGIN_S + REPLAY_S
        for _ in range(pages):
            group.create_task(_ask(process.url, sent, ends))
        await asyncio.sleep(BEGIN_S)
        cost = sse_bed.Cost(process.pid)
        await asyncio.sleep(REPLAY_S)
        return cost.busy


async def _ask(url: str, sent: Sent, ends: float) -> None:
    """The requests of one page in their order and at their pace, from any point of the period."""
    plan = sorted((at / 1e3 % WATCH_S, path) for at, path in sent)
    began = time.monotonic() - random.uniform(0, WATCH_S)
    async with httpx.AsyncClient(base_url=url, headers=HEADERS, timeout=30) as client:
        for turn in range(int((BEGIN_S + REPLAY_S) // WATCH_S) + 2):
            for at, path in plan:
                due = began + turn * WATCH_S + at
                if time.monotonic() - 1 <= due <= ends:
                    await asyncio.sleep(max(0, due - time.monotonic()))
                    (await client.get(path)).raise_for_status()
