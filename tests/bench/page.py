"""The page: how soon 5,000 tasks are painted, how they scroll, what idle pages cost, and *why*.

Needs chromium and chromedriver. The idle pages are one real browser, whose requests are recorded,
and clients that hold an event stream and send the recorded requests at the same pace.
"""

import asyncio
import itertools
import random
import time
from collections.abc import AsyncGenerator

import httpx

from tests.bench import bed, sse_bed
from tests.bench.report import Result, percentile
from tests.clients.browser import Browser

PAGES = 100
TASKS = 5_000
PAINTS = 5
SETTLE_S = 75.0  # after which an idle page asks at its slowest
WATCH_S = 120.0
SCROLL_S = 5.0
WHYS = 200

# As soon as nodes of the graph are in the document, the end of the frame that paints them.
MARK = """
new MutationObserver((_, observer) => {
  if (document.querySelectorAll('.node').length < 10) return;
  observer.disconnect();
  requestAnimationFrame(() => setTimeout(() => { window.drawn_at = performance.now(); }));
}).observe(document, { childList: true, subtree: true });
"""

# Moves a scrolled part by some pixels in each frame; the times of all frames.
SCROLL = """
const [where, seconds] = arguments;
const part = document.querySelector(where), times = [];
let step = 40;
window.frames_seen = null;
const frame = (now) => {
  times.push(now);
  const before = part.scrollTop + part.scrollLeft;
  part.scrollTop += step;
  part.scrollLeft += step;
  if (part.scrollTop + part.scrollLeft === before) step = -step;
  if (now - times[0] < seconds * 1000) requestAnimationFrame(frame);
  else window.frames_seen = times;
};
requestAnimationFrame(frame);
"""

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


async def measure(scale: float) -> AsyncGenerator[Result]:
    """Paint and scrolling in one browser; then idle pages; then *why* by HTTP."""
    tasks = [
        {"id": f"t{n}", "kind": f"k{n % 3}", "depends_on": [f"t{n - 100}"] if n >= 100 else []}
        for n in range(TASKS)
    ]
    with bed.nats() as server, Browser() as browser:
        async with sse_bed.service(server.url) as process:
            async with httpx.AsyncClient(base_url=process.url, timeout=60) as client:
                (
                    await client.post("/v1/plans", json={"id": "p", "tasks": tasks})
                ).raise_for_status()
                large = [{"id": f"t{n}", "kind": "k"} for n in range(2 * TASKS)]
                (
                    await client.post("/v1/plans", json={"id": "q", "tasks": large})
                ).raise_for_status()
                yield await _why(client)
            yield await asyncio.to_thread(_paint, browser, process.url)
            for where, view in ((".graph", "graph"), ("html", "tasks")):
                yield await asyncio.to_thread(_scroll, browser, process.url, where, view)
    with bed.nats() as server, Browser() as browser:
        async with sse_bed.service(server.url) as process:
            for screen in ("plans", "plans/p", "health"):
                yield await _idle(browser, process, screen, max(int(PAGES * scale), 10))


async def _why(client: httpx.AsyncClient) -> Result:
    times: list[float] = []
    for number in range(WHYS):
        path = "/v1/plans/q/why" if number % 2 else f"/v1/plans/q/tasks/t{number * 50}/why"
        began = time.perf_counter()
        (await client.get(path)).raise_for_status()
        times.append((time.perf_counter() - began) * 1000)
    return Result(
        measure="why of a plan of 10,000 tasks, p99",
        value=percentile(times, 0.99),
        unit="ms",
        at_most=50,
        seen={"p50_ms": percentile(times, 0.5)},
    )


def _paint(browser: Browser, url: str) -> Result:
    browser.before_each_page(MARK)
    times: list[float] = []
    for _ in range(PAINTS):
        browser.open("about:blank")
        browser.open(f"{url}/#/plans/p")
        times.append(browser.until("return window.drawn_at", "the graph is painted"))
    return Result(
        measure=f"first paint of a plan of {TASKS} tasks",
        value=percentile(times, 0.5),
        unit="ms",
        at_most=1_000,
        seen={"each_ms": sorted(map(round, times))},
    )


def _scroll(browser: Browser, url: str, where: str, view: str) -> Result:
    browser.open("about:blank")
    browser.open(f"{url}/#/plans/p?view={view}")
    browser.until(f"return document.querySelector({where!r})", "it is drawn")
    time.sleep(2)
    browser.devtools("Performance.enable", timeDomain="threadTicks")
    before = _main_thread_s(browser)
    browser.run(SCROLL, where, SCROLL_S)
    times: list[float] = browser.until("return window.frames_seen", "it has scrolled")
    gaps = [after - before for before, after in itertools.pairwise(times)]
    period = percentile(gaps, 0.25)  # the browser's own
    cpu_ms = (_main_thread_s(browser) - before) * 1000 / len(gaps)
    due = (times[-1] - times[0]) / period
    return Result(
        measure=f"frames dropped in scrolling the {view}",
        value=max(0.0, 1 - len(gaps) / due) * 100,
        unit="%",
        at_most=5,
        seen={
            "frames": len(gaps),
            "cpu_ms_per_frame": cpu_ms,
            "period_ms": period,
            "longest_ms": max(gaps),
        },
    )


def _main_thread_s(browser: Browser) -> float:
    """CPU seconds of the page's main thread: other work on the machine does not count."""
    told = browser.devtools("Performance.getMetrics")["metrics"]
    return float(next(each["value"] for each in told if each["name"] == "TaskDuration"))


async def _idle(
    browser: Browser, process: sse_bed.ServiceProcess, screen: str, pages: int
) -> Result:
    port = sse_bed.port_of(process)
    await asyncio.to_thread(browser.open, "about:blank")
    cost = sse_bed.Cost(process.pid)
    await asyncio.sleep(20)
    alone = cost.busy
    await asyncio.to_thread(browser.open, f"{process.url}/#/{screen}")
    await asyncio.sleep(SETTLE_S + WATCH_S)
    sent: list[tuple[float, str]] = await asyncio.to_thread(browser.run, REQUESTS, SETTLE_S * 1e3)
    async with sse_bed.Generator("sse_crowd", port, "/v1/events", pages) as crowd:
        async with asyncio.TaskGroup() as group:
            ends = time.monotonic() + 60
            clients = [
                group.create_task(_ask(process.url, sent, WATCH_S, ends)) for _ in range(pages)
            ]
            await asyncio.sleep(5)
            cost.restart()
            await asyncio.gather(*clients)
            busy = cost.busy
        await crowd.ask()
    return Result(
        measure=f"{pages} idle pages ({screen}): CPU of the service",
        value=(busy - alone) * 100,
        unit="% of core",
        at_most=2,
        seen={"requests_per_page_per_min": len(sent) / WATCH_S * 60, "alone": alone * 100},
    )


async def _ask(url: str, sent: list[tuple[float, str]], period_s: float, ends: float) -> None:
    """The requests of one page in their order and at their pace, from any point of the period."""
    plan = sorted((at / 1e3 % period_s, path) for at, path in sent)
    began = time.monotonic() - random.uniform(0, period_s)
    async with httpx.AsyncClient(base_url=url, headers=HEADERS, timeout=30) as client:
        for turn in range(10):
            for at, path in plan:
                due = began + turn * period_s + at
                if due < time.monotonic() - 1:
                    continue
                if due > ends:
                    await asyncio.sleep(max(0, ends - time.monotonic()))
                    return
                await asyncio.sleep(max(0, due - time.monotonic()))
                (await client.get(path)).raise_for_status()
