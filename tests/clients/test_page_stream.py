"""The page's one event stream in a real Chromium: kills, sleep, gaps, and ten tabs."""

import asyncio
from collections.abc import Callable

import httpx
import pytest

from service.core.core import Core
from tests.clients.browser import Browser
from tests.clients.page_world import begin, click, progress, reads, show, streamed
from tests.conftest import PrivateServer
from tests.faults.service_process import ServiceProcess
from tests.integration.test_sse_truth import purge

pytestmark = pytest.mark.timeout(180)


async def test_streamed_text_is_whole_through_a_killed_service_and_a_reload(
    alone: Browser, service: ServiceProcess, core: Core
) -> None:
    words = [f"word{n} " for n in range(60)]
    at = await progress(core, "p", await begin(core, "p"), words[:20])
    await asyncio.to_thread(show, alone, service, "plans/p?task=a")
    await asyncio.to_thread(reads, alone, "word19")
    service.kill()
    at = await progress(core, "p", at, words[20:40])
    await asyncio.to_thread(service.start)
    await asyncio.to_thread(reads, alone, "word39", 60)
    await progress(core, "p", at, words[40:])
    await asyncio.to_thread(reads, alone, "word59")
    assert await asyncio.to_thread(streamed, alone) == "".join(words)
    await asyncio.to_thread(alone.reload)
    await asyncio.to_thread(reads, alone, "word59")
    assert await asyncio.to_thread(streamed, alone) == "".join(words)


async def test_a_proxy_that_answers_for_a_dead_service_costs_no_text(
    alone: Browser, service: ServiceProcess, core: Core
) -> None:
    """A browser gives an event stream up for good after a 502: the page begins it anew."""
    at = await progress(core, "p", await begin(core, "p"), ["before "])
    await asyncio.to_thread(show, alone, service, "plans/p?task=a")
    await asyncio.to_thread(reads, alone, "before")
    port = int(service.url.rpartition(":")[2])
    service.kill()
    at = await progress(core, "p", at, ["meanwhile "])
    await refuse_a_stream(port)
    await asyncio.to_thread(service.start)
    await progress(core, "p", at, ["after"])
    await asyncio.to_thread(reads, alone, "after")
    assert await asyncio.to_thread(streamed, alone) == "before meanwhile after"


async def refuse_a_stream(port: int) -> None:
    """Answer 502 on this port until the event stream has been asked for."""
    refused = asyncio.Event()
    writers: set[asyncio.StreamWriter] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        if not (asked := await reader.readline()):
            return
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()
        if b"/v1/events" in asked and b"plan_id" not in asked:
            refused.set()

    async with asyncio.timeout(30), await asyncio.start_server(answer, "127.0.0.1", port):
        await refused.wait()
    for writer in writers:  # a browser opens connections ahead, and says nothing on some
        writer.transport.abort()


async def test_a_tab_that_sleeps_over_5000_events_misses_and_repeats_none(
    alone: Browser, service: ServiceProcess, core: Core
) -> None:
    at = await begin(core, "p")
    await asyncio.to_thread(show, alone, service, "plans/p?task=a")
    await asyncio.to_thread(reads, alone, "lease_held")
    mine = alone.tab
    other = await asyncio.to_thread(alone.new_tab)  # the first is hidden now
    at = await progress(core, "p", at, [f"{n}," for n in range(5_000)])
    await asyncio.to_thread(alone.close_tab, other)
    await asyncio.to_thread(alone.go_to, mine)
    await asyncio.to_thread(reads, alone, "4999,", 60)
    expected = "".join(f"{n}," for n in range(5_000))
    assert await asyncio.to_thread(streamed, alone) == expected


async def test_ten_tabs_hold_one_stream(alone: Browser, service: ServiceProcess) -> None:
    tabs = [alone.tab, *[await asyncio.to_thread(alone.new_tab) for _ in range(9)]]
    for tab in tabs:
        await asyncio.to_thread(alone.go_to, tab)
        await asyncio.to_thread(show, alone, service, "plans")
        await asyncio.to_thread(reads, alone, "live")
    async with httpx.AsyncClient(base_url=service.url) as client:
        status = (await client.get("/v1/ops/status")).json()
    shown = [await asyncio.to_thread(at, alone, tab) for tab in tabs]
    for tab in tabs[1:]:
        await asyncio.to_thread(alone.close_tab, tab)
    assert shown == [f"{service.url}/#/plans"] * 10
    assert status["sse"]["connections"] == 1


def at(browser: Browser, tab: str) -> str:
    """The address that a tab shows."""
    browser.go_to(tab)
    return str(browser.run("return location.href"))


async def test_events_that_left_the_log_before_a_page_had_them_are_shown_as_missing(
    alone: Browser, service: ServiceProcess, core: Core, private_nats: PrivateServer
) -> None:
    await begin(core, "old")
    await asyncio.to_thread(show, alone, service, "plans")
    await asyncio.to_thread(reads, alone, "old")
    await asyncio.to_thread(reads, alone, "live")
    alert = "return document.querySelector('[role=alert]')?.innerText"
    assert await asyncio.to_thread(alone.run, alert) is None
    service.kill()
    first = await begin(core, "lost") + 1
    await begin(core, "kept")
    await purge(private_nats.url, first)
    service.launch()
    missing = f"Events are missing: events 3 to {first - 1} have left the log"
    await asyncio.to_thread(reads, alone, missing, 60)
    await asyncio.to_thread(reads, alone, "kept")
    await asyncio.to_thread(click, alone, "dismiss")
    gone = "return !document.querySelector('[role=alert]')"
    await asyncio.to_thread(alone.until, gone, "it is dismissed")


async def test_another_log_under_the_page_is_a_gap(
    alone: Browser, service: ServiceProcess, core: Core, start_nats: Callable[[], PrivateServer]
) -> None:
    """As after a restore from an older backup: the page has seen more than there is now."""
    await progress(core, "p", await begin(core, "p"), ["one ", "two "])
    await asyncio.to_thread(show, alone, service, "plans/p?task=a")
    await asyncio.to_thread(reads, alone, "two")
    port = service.url.rpartition(":")[2]
    folder = service.data_dir.with_name("restored")
    service.kill()
    other = ServiceProcess(folder, nats_url=start_nats().url, roles="api", http__port=port)
    try:
        await asyncio.to_thread(other.start)
        await asyncio.to_thread(reads, alone, "Events are missing", 60)
        await asyncio.to_thread(reads, alone, "it is another log, or an older copy")
        await asyncio.to_thread(reads, alone, "there is no plan 'p'")
    finally:
        await asyncio.to_thread(other.stop)
