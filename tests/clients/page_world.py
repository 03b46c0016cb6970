"""What the tests of the page share: they open a screen, read and press, and write what it shows."""

from pathlib import Path
from typing import Protocol

from msgspec import Raw

from service.core.core import Core
from streams.plan.events import Claimed, Progress, Submitted, TaskSpec
from tests.clients.browser import Browser
from tests.integration.sse_world import write
from tests.programs import program


class Served(Protocol):
    """What serves a page."""

    @property
    def url(self) -> str: ...


def show(browser: Browser, service: Served, place: str) -> None:
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


def grave_faults(browser: Browser) -> list[tuple[str, list[str]]]:
    """What axe-core finds serious or critical on the screen that is shown, with the elements."""
    modules = Path(program("tsc")).resolve().parents[2]  # it stands beside the TypeScript compiler
    if not browser.run("return 'axe' in window"):
        browser.run((modules / "axe-core" / "axe.min.js").read_text())
    found = browser.run(
        "return axe.run({ resultTypes: ['violations'] }).then((told) => told.violations)"
    )
    return [
        (each["id"], [node["html"][:120] for node in each["nodes"][:3]])
        for each in found
        if each["impact"] in {"serious", "critical"}
    ]
