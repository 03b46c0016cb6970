"""The page in a real Chromium: true, live, through kills, and never markup."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import Raw

from service.core.core import Core
from streams.plan.events import Claimed, Completed, Progress, Submitted, TaskSpec
from tests.clients.browser import Browser
from tests.clients.outside import OutsidePlan
from tests.conftest import PrivateServer
from tests.faults.service_process import ServiceProcess
from tests.integration.sse_world import write
from tests.integration.test_sse_truth import purge
from tests.programs import program

pytestmark = pytest.mark.timeout(180)

TEXT = "return document.body.innerText"
HOSTILE = "<img src=x onerror=window.pwned=1>\u2028id: 1\u202eevil 🦊</script>"


@pytest.fixture
def alone(browser: Browser) -> Iterator[Browser]:
    """A tab of its own, on which nothing is left of the test before."""
    first = browser.tab
    mine = browser.new_tab()
    browser.resize(1360, 950)
    browser.complaints()
    yield browser
    refused = [each for each in browser.complaints() if "content security policy" in each.lower()]
    browser.close_tab(mine)
    browser.go_to(first)
    assert refused == [], "no screen does what its policy forbids"


def axe_core() -> str:
    """The script, which stands beside the TypeScript compiler."""
    modules = Path(program("tsc")).resolve().parents[2]
    return (modules / "axe-core" / "axe.min.js").read_text()


def show(browser: Browser, service: ServiceProcess, place: str) -> None:
    """Open a screen, as a link would."""
    browser.open(f"{service.url}/#/{place}")
    browser.until("return document.querySelector('main')", "the page is there")


def reads(browser: Browser, text: str, within_s: float = 30) -> None:
    browser.until(
        f"return document.body.innerText.includes({text!r})", f"it shows {text!r}", within_s
    )


def click(browser: Browser, label: str) -> None:
    """Press the button, or tab, of this label."""
    found = "[...document.querySelectorAll('button')].find((each) => each.innerText.trim() === %r)"
    browser.until(f"return {found % label}", f"there is a button {label!r}")
    browser.run(f"{found % label}.click()")


def act(browser: Browser, button: str, reason: str) -> None:
    """Press a button that asks for a reason, give one, and send it."""
    click(browser, button)
    browser.until("return document.querySelector('dialog textarea')", "it asks for a reason")
    browser.run(
        "const box = document.querySelector('dialog textarea'); box.value = arguments[0];"
        "box.dispatchEvent(new Event('input', {bubbles: true}));",
        reason,
    )
    browser.until(
        "return !document.querySelector('dialog [type=submit]').disabled", "it may be sent"
    )
    browser.run("document.querySelector('dialog [type=submit]').click()")
    browser.until("return !document.querySelector('dialog')", "it is done")


def streamed(browser: Browser) -> str:
    return browser.run("return document.querySelector('[data-stream]')?.textContent ?? ''")


async def progress(core: Core, plan: str, expected: int, words: list[str]) -> int:
    """Progress with text on task ``a``; answers the sequence of the last."""
    steps = [
        Progress(owner="w", attempt=1, data=Raw(b'{"text":"%s"}' % word.encode())) for word in words
    ]
    for start in range(0, len(steps), 100):
        expected = await write(core, plan, "a", expected, *steps[start : start + 100])
    return expected


async def begin(core: Core, plan: str) -> int:
    """A plan whose task ``a`` runs outside; answers the sequence of its claim."""
    await write(core, plan, None, 0, Submitted(tasks=(TaskSpec(id="a", kind="outside"),)))
    return await write(core, plan, "a", 0, Claimed(owner="w", attempt=1, lease_s=600))


async def test_a_plan_runs_to_its_end_without_a_reload(
    alone: Browser, service: ServiceProcess, core: Core
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


async def test_names_and_outputs_stay_text(
    alone: Browser, service: ServiceProcess, core: Core
) -> None:
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
    await write(core, "p", "a", at, done)
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
    await asyncio.to_thread(show, alone, service, "plans/p?task=a")
    await asyncio.to_thread(reads, alone, "12345678901234567890")
    await asyncio.to_thread(reads, alone, "0.10")
    assert await asyncio.to_thread(alone.complaints) == []


async def test_an_action_asks_for_a_reason_that_stands_in_the_audit(
    alone: Browser, service: ServiceProcess, core: Core
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
    alone: Browser, service: ServiceProcess
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
    alone: Browser, service: ServiceProcess
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


async def test_the_past_is_shown_and_left_again(
    alone: Browser, service: ServiceProcess, core: Core
) -> None:
    plan = await OutsidePlan.begin(core, "p")
    await plan.complete()
    await plan.finish()
    await asyncio.to_thread(show, alone, service, "plans/p?view=tasks&at=2")
    await asyncio.to_thread(reads, alone, "the past")
    await asyncio.to_thread(reads, alone, "RUNNING")
    await asyncio.to_thread(click, alone, "Back to now")
    await asyncio.to_thread(reads, alone, "COMPLETED")


async def test_the_timeline_hatches_lost_attempts_and_counts_a_lease_down(
    alone: Browser, service: ServiceProcess, core: Core
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
    alone: Browser, service: ServiceProcess, core: Core
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
    alone: Browser, service: ServiceProcess, core: Core, width: int, theme: str
) -> None:
    axe = axe_core()
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
        await asyncio.to_thread(alone.run, axe)
        await asyncio.to_thread(
            alone.run,
            "window.told = null; axe.run().then((told) => { window.told = [told.violations]; })",
        )
        (found,) = await asyncio.to_thread(alone.until, "return window.told", "axe has looked")
        grave = [
            (place, each["id"], [node["html"][:120] for node in each["nodes"][:3]])
            for each in found
            if each["impact"] in {"serious", "critical"}
        ]
        assert grave == []
        overflow = "return document.documentElement.scrollWidth - innerWidth"
        assert await asyncio.to_thread(alone.run, overflow) <= 1, place
