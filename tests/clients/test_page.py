"""The page in a real Chromium: true, live, usable by all, and never markup."""

import asyncio
from typing import Any, NamedTuple

import httpx
import pytest
from msgspec import Raw

from service.app import Instance
from service.core.core import Core
from streams.plan.events import Claimed, Completed, Submitted, TaskSpec
from tests.clients.browser import Browser
from tests.clients.outside import OutsidePlan
from tests.clients.page_world import act, click, grave_faults, reads, show
from tests.integration.sse_world import write

pytestmark = pytest.mark.timeout(180)


class Here(NamedTuple):
    """The instance in this process: nothing here ends it."""

    url: str


@pytest.fixture
def service(writer: Instance) -> Here:
    return Here(writer.http_url)


HOSTILE = "<img src=x onerror=window.pwned=1>\u2028id: 1\u202eevil 🦊</script>"


async def test_a_plan_runs_to_its_end_without_a_reload(
    alone: Browser, service: Here, core: Core
) -> None:
    plan = await OutsidePlan.begin(core, "p")
    await asyncio.to_thread(show, alone, service, "plans/p?view=tasks")
    await asyncio.to_thread(reads, alone, "RUNNING")
    await asyncio.to_thread(alone.run, "window.marker = 1")
    await plan.complete()
    await plan.finish()
    await asyncio.to_thread(reads, alone, "COMPLETED")
    assert await asyncio.to_thread(alone.run, "return window.marker") == 1
    assert await asyncio.to_thread(alone.complaints) == []


async def test_names_and_outputs_stay_text(alone: Browser, service: Here, core: Core) -> None:
    large = "y" * (1024 * 1024 - 1_000)  # with the rest: as large as one event may be
    task = TaskSpec(id="a", kind="outside", input=Raw(b'{"n": 12345678901234567890, "half": 0.10}'))
    spec = Submitted(name=HOSTILE, labels={"l": HOSTILE[:60]}, tasks=(task,))
    await write(core, "p", None, 0, spec)
    at = await write(core, "p", "a", 0, Claimed(owner=HOSTILE[:60], attempt=1, lease_s=600))
    text = HOSTILE.encode().replace(b'"', b"'")
    done = Completed(
        owner=HOSTILE[:60],
        attempt=1,
        output=Raw(b'{"text": "%s", "long": "%s"}' % (text, large.encode())),
    )
    last = await write(core, "p", "a", at, done)
    for place in (
        "plans",
        "plans/p?view=timeline",
        "plans/p?task=a",
        "plans/p?view=events",
        "workers",
    ):
        await asyncio.to_thread(show, alone, service, place)
        await asyncio.to_thread(reads, alone, "onerror=window.pwned")
        assert (
            await asyncio.to_thread(
                alone.run, "return document.querySelectorAll('img[src=x]').length"
            )
            == 0
        )
        assert await asyncio.to_thread(alone.run, "return window.pwned ?? null") is None
    for place in ("plans/p?task=a", f"plans/p?task=a&at={last}", "plans/p?view=events"):
        await asyncio.to_thread(show, alone, service, place)
        if place.endswith("events"):
            await asyncio.to_thread(
                alone.until, "return document.querySelector('[type=checkbox]')", "events are shown"
            )
            await asyncio.to_thread(
                alone.run, "document.querySelector('[type=checkbox]').click()"
            )  # raw
        await asyncio.to_thread(reads, alone, "12345678901234567890")
        await asyncio.to_thread(reads, alone, "0.10")
    assert await asyncio.to_thread(alone.complaints) == []


async def test_an_action_asks_for_a_reason_that_stands_in_the_audit(
    alone: Browser, service: Here, core: Core
) -> None:
    await OutsidePlan.begin(core, "p")
    actions = (
        ("plans/p", "Pause", "the provider is down"),
        ("plans/p", "Resume", "it is back"),
        ("plans/p", "Pause", "it is down again"),
        ("plans", "Resume", "from the banner of what needs you"),
        ("plans/p", "Cancel plan", "no longer needed"),
    )
    for place, button, reason in actions:
        await asyncio.to_thread(show, alone, service, place)
        await asyncio.to_thread(act, alone, button, reason)
    await asyncio.to_thread(reads, alone, "CANCELLED")
    async with httpx.AsyncClient(base_url=service.url) as client:
        async with asyncio.timeout(20):
            while len(items := await _actions(client)) < len(actions):
                await asyncio.sleep(0.05)
    told = [(each["actual"]["action"], each["actual"]["reason"]) for each in items[::-1]]
    assert told == [(button.split()[0].lower(), reason) for _, button, reason in actions]


async def _actions(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    answer = await client.get("/v1/audit", params={"event": "operator_action"})
    return list(answer.json()["items"])


async def claimed(client: httpx.AsyncClient, owner: str) -> dict[str, Any]:
    """A claim of the only task, as a worker asks for it."""
    body = {"owner": owner, "kinds": ["outside"], "wait_s": 10}
    (claim,) = (await client.post("/v1/claims", json=body)).json()["claims"]
    return dict(claim)


async def test_retries_and_a_release_stand_in_the_audit_with_their_reasons(
    alone: Browser, service: Here
) -> None:
    async with httpx.AsyncClient(base_url=service.url, timeout=20) as client:
        plan = {"id": "p", "tasks": [{"id": "a", "kind": "outside", "max_retries": 0}]}
        await client.post("/v1/plans", json=plan)
        path = "/v1/plans/p/tasks/a"
        for button, place in (("Retry failed tasks", "plans/p"), ("Retry", "plans/p?task=a")):
            claim = await claimed(client, "w")
            error = {"error_type": "broken", "error_message": "no", "retryable": False}
            who = {"owner": "w", "attempt": claim["attempt"]}
            assert (await client.post(f"{path}/fail", json=who | error)).is_success
            await asyncio.to_thread(show, alone, service, place)
            await asyncio.to_thread(act, alone, button, f"reason of {button}")
        await claimed(client, "w")
        await asyncio.to_thread(show, alone, service, "plans/p?task=a")
        await asyncio.to_thread(act, alone, "Release", "reason of Release")
        async with asyncio.timeout(20):
            while len(items := await _actions(client)) < 3:
                await asyncio.sleep(0.05)
    told = " ".join(str(each) for each in items)
    for button in ("Retry failed tasks", "Retry", "Release"):
        assert f"reason of {button}" in told


async def test_a_refused_write_needs_you_and_leads_to_both_claims(
    alone: Browser, service: Here
) -> None:
    async with httpx.AsyncClient(base_url=service.url, timeout=20) as client:
        await client.post("/v1/plans", json={"id": "p", "tasks": [{"id": "a", "kind": "outside"}]})
        path = "/v1/plans/p/tasks/a"
        old = await claimed(client, "old")
        who = {"owner": "old", "attempt": old["attempt"]}
        assert (await client.post(f"{path}/release", json=who | {"reason": "slow"})).is_success
        new = await claimed(client, "new")
        late = await client.post(f"{path}/complete", json=who | {"output": 1})
        assert late.status_code == 409
    for place in ("plans", "health"):
        await asyncio.to_thread(show, alone, service, place)
        await asyncio.to_thread(reads, alone, "written by old, attempt 1")
    for claim, owner in ((old, "old"), (new, "new")):
        at = claim["fencing_token"]
        await asyncio.to_thread(show, alone, service, "plans")
        await asyncio.to_thread(reads, alone, f"(claim {at})")
        await asyncio.to_thread(
            alone.run,
            "[...document.querySelectorAll('.refused a')]"
            ".find((each) => each.innerText.includes(arguments[0])).click()",
            f"(claim {at})",
        )
        await asyncio.to_thread(reads, alone, "the past")
        shown = f"return document.querySelector('.pane')?.innerText.includes({owner!r})"
        await asyncio.to_thread(alone.until, shown, f"the task as {owner} had it")


async def test_the_past_is_shown_and_left_again(alone: Browser, service: Here, core: Core) -> None:
    plan = await OutsidePlan.begin(core, "p")
    await plan.complete()
    await plan.finish()
    await asyncio.to_thread(show, alone, service, "plans/p?view=tasks&at=2")
    await asyncio.to_thread(reads, alone, "the past")
    await asyncio.to_thread(reads, alone, "RUNNING")
    await asyncio.to_thread(click, alone, "timeline")
    bars = "return [...document.querySelectorAll('.lane g title')].map((each) => each.textContent)"
    await asyncio.to_thread(alone.until, f"{bars}.length", "an attempt is drawn")
    assert "attempt 1: running" in (await asyncio.to_thread(alone.run, bars))[0]
    await asyncio.to_thread(click, alone, "events")
    await asyncio.to_thread(reads, alone, "2 events")
    await asyncio.to_thread(click, alone, "Back to now")
    await asyncio.to_thread(reads, alone, "COMPLETED")
    await asyncio.to_thread(show, alone, service, "plans/p?at=99999")
    await asyncio.to_thread(reads, alone, "the log has no sequence 99999 yet")
    await asyncio.to_thread(reads, alone, "Back to now")


async def test_the_timeline_hatches_lost_attempts_and_counts_a_lease_down(
    alone: Browser, service: Here, core: Core
) -> None:
    await write(core, "p", None, 0, Submitted(tasks=(TaskSpec(id="a", kind="outside"),)))
    at = await write(core, "p", "a", 0, Claimed(owner="w", attempt=1, lease_s=0.1))
    await asyncio.sleep(0.2)
    again = Claimed(owner="x", attempt=2, lease_s=600, previous_owner="w")
    await write(core, "p", "a", at, again)
    await asyncio.to_thread(show, alone, service, "plans/p?view=timeline")
    await asyncio.to_thread(reads, alone, "s left")
    fills = await asyncio.to_thread(
        alone.run,
        "return [...document.querySelectorAll('.lane g')].map((each) => "
        "[each.textContent.trim().slice(0, 20), getComputedStyle(each.children[1]).fill])",
    )
    assert [name for name, _ in fills] == ["☇ attempt 1: lost, w", "▶ attempt 2: running"]
    assert "#lost" in fills[0][1]
    assert fills[1][1].startswith("rgb")
    left = "return parseInt(document.querySelector('.lane .left').innerText)"
    before = await asyncio.to_thread(alone.run, left)
    await asyncio.to_thread(alone.until, f"{left} < {before}", "the lease is counted down")


async def test_5000_tasks_are_shown_at_once_and_scroll(
    alone: Browser, service: Here, core: Core
) -> None:
    tasks = tuple(
        TaskSpec(id=f"t{n}", kind=f"k{n % 3}", depends_on=(f"t{n - 100}",) if n >= 100 else ())
        for n in range(5_000)
    )
    await write(core, "p", None, 0, Submitted(tasks=tasks))
    await asyncio.to_thread(show, alone, service, "plans")
    await asyncio.to_thread(show, alone, service, "plans/p")
    await asyncio.to_thread(
        alone.until, "return document.querySelectorAll('.node').length > 10", "the graph is drawn"
    )
    drawn = await asyncio.to_thread(alone.run, "return document.querySelectorAll('.node').length")
    assert drawn < 2_000, "only what is in view is drawn"
    await asyncio.to_thread(alone.run, "document.querySelector('.graph').scrollTo(6000, 3000)")
    await asyncio.to_thread(
        alone.until,
        "return document.querySelector('[data-node=t2760]')",
        "what is scrolled to is drawn",
    )


@pytest.mark.parametrize(("width", "theme"), [(1360, "dark"), (360, "light")])
async def test_axe_finds_nothing_serious(
    alone: Browser, service: Here, core: Core, width: int, theme: str
) -> None:
    await OutsidePlan.begin(core, "p")
    await write(
        core, "q", None, 0, Submitted(labels={"team": "x"}, tasks=(TaskSpec(id="b", kind="ecko"),))
    )
    alone.resize(width, 800)
    await asyncio.to_thread(show, alone, service, "plans")
    await asyncio.to_thread(alone.run, "localStorage.setItem('theme', arguments[0])", theme)
    await asyncio.to_thread(alone.reload)
    for place in ("plans", "plans/p?task=a", "plans/p?view=tasks&at=2", "plans/p?view=timeline",
                  "plans/p?view=events", "plans/p?view=tasks", "workers", "audit", "health",
                  "plans/p"):  # fmt: skip
        await asyncio.to_thread(show, alone, service, place)
        if place == "plans/p":
            await asyncio.to_thread(click, alone, "Pause")
        await asyncio.to_thread(
            alone.until, "return !document.querySelector('[aria-busy]')", "it is read"
        )
        assert await asyncio.to_thread(grave_faults, alone) == [], place
        overflow = "return document.documentElement.scrollWidth - innerWidth"
        assert await asyncio.to_thread(alone.run, overflow) <= 1, place
