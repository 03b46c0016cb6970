"""The page: how soon 5,000 tasks are painted, how they scroll, what idle pages cost, and *why*.

Needs chromium and chromedriver; takes six minutes, most of them for the idle pages.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator

import httpx

from tests.bench import bed, page_idle, sse_bed
from tests.bench.report import Result, percentile, progress
from tests.clients.browser import Browser

TASKS = 5_000
PAINTS = 5
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
                progress(f"page: why, {WHYS} times")
                yield await _why(client)
            progress(f"page: {PAINTS} first paints of {TASKS} tasks, then scrolling")
            yield await asyncio.to_thread(_paint, browser, process.url)
            for where, view in ((".graph", "graph"), ("html", "tasks")):
                yield await asyncio.to_thread(_scroll, browser, process.url, where, view)
    async for result in page_idle.measure(scale):
        yield result


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
