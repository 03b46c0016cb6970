"""A browser's own EventSource, in a real Chromium: reloads, killed servers, the end of a plan.

The pages are at the API's own origin: an instance answers no other page (there is no CORS).
"""

from typing import Any

import pytest

from projections.feed.entry import ALL_TYPES
from service.core.core import Core
from tests.clients.browser import Browser
from tests.clients.outside import OutsidePlan
from tests.faults.service_process import ServiceProcess

FOLLOW = """
    const [url, names] = arguments;
    window.seen = [];
    window.source = new EventSource(url);
    for (const name of names)
        source.addEventListener(name, (event) => seen.push(
            { name, id: event.lastEventId, data: JSON.parse(event.data) }));
"""
SIGNALS = ("hello", "caught_up", "gap", "closed")
CLOSED = 2


class Page:
    """A page that follows a stream by the browser's means alone."""

    def __init__(self, browser: Browser, service: ServiceProcess) -> None:
        self.browser = browser
        browser.open(f"{service.url}/healthz")

    def follow(self, path: str) -> None:
        self.browser.run(FOLLOW, path, [*ALL_TYPES, *SIGNALS])

    def until(self, name: str, times: int = 1) -> list[dict[str, Any]]:
        """Everything seen, once ``name`` has been seen so often."""
        count = f"seen.filter((each) => each.name === {name!r}).length"
        self.browser.until(f"return {count} >= {times}", f"{name}, {times} times")
        return self.seen()

    def until_id(self, sequence: int) -> list[dict[str, Any]]:
        """Everything seen, once the event of that sequence has been seen."""
        self.browser.until(
            f"return seen.some((each) => each.data.sequence >= {sequence} && each.data.type)",
            f"event {sequence}",
        )
        return self.seen()

    def seen(self) -> list[dict[str, Any]]:
        return self.browser.run("return seen")


def names(seen: list[dict[str, Any]]) -> list[str]:
    return [each["name"] for each in seen]


def sequences(seen: list[dict[str, Any]]) -> list[int]:
    """Those of the events, whose ids say the same."""
    events = [each for each in seen if each["name"] in ALL_TYPES]
    assert [int(each["id"]) for each in events] == [each["data"]["sequence"] for each in events]
    return [each["data"]["sequence"] for each in events]


@pytest.fixture
def page(browser: Browser, service: ServiceProcess) -> Page:
    return Page(browser, service)


async def test_a_page_sees_each_event_as_it_happens_and_a_reloaded_one_begins_anew(
    page: Page, core: Core
) -> None:
    plan = await OutsidePlan.begin(core, "p")
    page.follow("/v1/plans/p/events")
    seen = page.until("caught_up")
    assert names(seen) == ["hello", "plan.submitted", "task.claimed", "caught_up"]
    await plan.progress(3)
    assert sequences(page.until_id(plan.sequence)) == [1, 2, 3, 4, 5]

    page.browser.reload()  # a plan's own stream begins at its beginning
    page.follow("/v1/plans/p/events")
    assert sequences(page.until("caught_up")) == [1, 2, 3, 4, 5]

    page.browser.reload()  # who kept its place goes on there
    await plan.progress()
    page.follow("/v1/plans/p/events?after=4")
    seen = page.until("caught_up")
    assert (names(seen)[0], sequences(seen)) == ("hello", [5, 6])

    page.browser.reload()  # and the stream of everything begins with what comes next
    page.follow("/v1/events")
    assert names(page.until("caught_up")) == ["hello", "caught_up"]
    await plan.progress()
    assert sequences(page.until_id(plan.sequence)) == [plan.sequence]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "path", ["/v1/plans/p/events", "/v1/events?after=1&types=task.claimed,task.progress"]
)
async def test_a_killed_server_costs_no_event_and_brings_none_twice(
    page: Page, service: ServiceProcess, core: Core, path: str
) -> None:
    plan = await OutsidePlan.begin(core, "p")
    page.follow(path)
    begun = sequences(page.until("caught_up"))
    await plan.progress(5)
    page.until_id(plan.sequence)
    service.kill()
    await plan.progress(5)  # unseen
    service.start()
    await plan.progress(5)
    seen = page.until_id(plan.sequence)
    assert names(seen).count("hello") == 2, "it has connected again by itself"
    assert "gap" not in names(seen)
    assert sequences(seen) == list(range(begun[0], plan.sequence + 1))


async def test_after_the_end_of_a_plan_the_browser_asks_once_more_and_stops(
    page: Page, core: Core
) -> None:
    plan = await OutsidePlan.begin(core, "p")
    page.follow("/v1/plans/p/events")
    page.until("caught_up")
    await plan.finish()
    seen = page.until("closed")
    assert seen[-1]["data"] == {"reason": "plan_finished"}
    assert sequences(seen)[-1] == plan.sequence
    page.browser.until(f"return source.readyState === {CLOSED}", "204 has stopped it")
    assert page.seen() == seen
