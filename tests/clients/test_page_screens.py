"""Pictures of each screen for the documents: ``HOLDFAST_PICTURES=docs/images pytest`` this file."""

import asyncio
import os
import time
from pathlib import Path

import httpx
import pytest

from service.core.core import Core
from tests.clients.browser import Browser
from tests.clients.page_world import begin, progress, show
from tests.faults.service_process import ServiceProcess

SCREENS = {
    "plans": "plans",
    "plan": "plans/report",
    "timeline": "plans/report?view=timeline",
    "task": "plans/agent?task=a",
    "events": "plans/report?view=events",
    "workers": "workers",
    "audit": "audit",
    "health": "health",
}
DARK = {"plan-dark": "plans/report", "plans-dark": "plans"}
NARROW = {"plans-360": "plans", "task-360": "plans/agent?task=a"}
LOW, TALL = 860, 1100  # of the window
IMAGES = Path(__file__).parents[2] / "docs" / "images"


def test_there_is_a_picture_of_each_screen() -> None:
    assert {path.stem for path in IMAGES.glob("*.png")} == {*SCREENS, *DARK, *NARROW}


async def work(client: httpx.AsyncClient) -> None:
    """A plan with a fan-out, of which some is done, some runs and one has failed."""
    leaves = [f"page-{n}" for n in range(1, 13)]
    tasks = [
        {"id": "fetch", "kind": "fetch"},
        *({"id": leaf, "kind": "read", "depends_on": ["fetch"]} for leaf in leaves[:6]),
        *({"id": leaf, "kind": "scan", "depends_on": ["fetch"]} for leaf in leaves[6:9]),
        {"id": "join", "kind": "write", "depends_on": leaves[:9]},
        {"id": "check", "kind": "check", "type": "critic", "depends_on": ["join"]},
    ]
    plan = {"id": "report", "name": "Weekly report", "labels": {"team": "ml"}, "tasks": tasks}
    assert (await client.post("/v1/plans", json=plan)).status_code == 201
    odd = {
        "id": "typo",
        "name": "A plan with a misspelt kind",
        "tasks": [{"id": "a", "kind": "raed"}],
    }
    await client.post("/v1/plans", json=odd)
    late: list[tuple[str, dict[str, object]]] = []
    for number in range(6):
        body = {"owner": f"reader-{number % 2 + 1}", "kinds": ["fetch", "read"], "wait_s": 2}
        for claim in (await client.post("/v1/claims", json=body)).json()["claims"]:
            path = f"/v1/plans/report/tasks/{claim['task_id']}"
            who = {"owner": body["owner"], "attempt": claim["attempt"]}
            await client.post(f"{path}/start", json=who)
            if number == 2:
                await client.post(
                    f"{path}/take-back", json={"attempt": claim["attempt"], "reason": "it hangs"}
                )
                (await client.post(f"{path}/claim", json={"owner": "reader-3"})).raise_for_status()
                late.append((f"{path}/complete", who))
            elif number == 3:
                error = {"error_type": "rate_limited", "error_message": "429", "retry_in_s": 300}
                await client.post(f"{path}/fail", json=who | error)
            elif number < 5:
                await asyncio.sleep(0.3)
                usage = {"input_tokens": 900 + number, "output_tokens": 120}
                done = {"output": {"words": 1200 + number}, "token_usage": usage}
                await client.post(f"{path}/complete", json=who | done)
    for path, who in late:
        await client.post(path, json=who)
    await client.post("/v1/plans/typo/pause", json={"reason": "its kind is misspelt"})


@pytest.mark.timeout(120)
@pytest.mark.skipif("HOLDFAST_PICTURES" not in os.environ, reason="draws pictures only when asked")
async def test_each_screen_is_drawn(browser: Browser, service: ServiceProcess, core: Core) -> None:
    folder = Path(os.environ["HOLDFAST_PICTURES"])
    async with httpx.AsyncClient(base_url=service.url, timeout=30) as client:
        await work(client)
    words = ("Holdfast", "keeps", "each", "word", "that", "an", "agent", "streams")
    await progress(core, "agent", await begin(core, "agent"), [f"{word} " for word in words])
    await asyncio.sleep(11)  # the doctor names a kind that no worker asks for after 10 s
    await asyncio.to_thread(draw, browser, service, SCREENS, folder)
    await asyncio.to_thread(browser.run, "localStorage.setItem('theme', 'dark')")
    await asyncio.to_thread(browser.reload)
    await asyncio.to_thread(draw, browser, service, DARK, folder)
    await asyncio.to_thread(browser.run, "localStorage.setItem('theme', '')")
    await asyncio.to_thread(browser.reload)
    metrics = {"width": 360, "height": 780, "deviceScaleFactor": 1, "mobile": False}
    browser.devtools("Emulation.setDeviceMetricsOverride", **metrics)
    await asyncio.to_thread(draw, browser, service, NARROW, folder)
    browser.devtools("Emulation.clearDeviceMetricsOverride")


def draw(browser: Browser, service: ServiceProcess, screens: dict[str, str], folder: Path) -> None:
    """A picture of each screen, once it has been read and has settled."""
    for name, place in screens.items():
        browser.resize(1280, TALL if place in {"plans", "health"} else LOW)
        show(browser, service, place)
        browser.until("return !document.querySelector('[aria-busy]')", "it is read")
        time.sleep(2)
        (folder / f"{name}.png").write_bytes(browser.screenshot())
