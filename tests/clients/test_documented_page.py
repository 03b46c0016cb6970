"""The page of docs/howto/follow-events.md, in Chromium behind nginx, misses nothing."""

import re
from pathlib import Path

import pytest

from service.core.core import Core
from tests.clients.browser import Browser
from tests.clients.nginx import Nginx
from tests.clients.outside import OutsidePlan
from tests.faults.service_process import ROOT, ServiceProcess, until

SNIPPET = re.findall(
    r"^```js\n(.*?)^```",
    (ROOT / "docs/howto/follow-events.md").read_text(),
    re.MULTILINE | re.DOTALL,
)[0]
PAGE = """<!doctype html><meta charset="utf-8">
<script>const shown = []; console.log = (...words) => shown.push(words);</script>
<script>%s</script>
"""


def shown_up_to(browser: Browser, sequence: int) -> list[int]:
    browser.until(
        f"return shown.some(([, event]) => event.sequence === {sequence})", f"event {sequence}"
    )
    return browser.run("return shown.map(([, event]) => event.sequence)")


@pytest.mark.timeout(120)
async def test_the_page_outlives_errors_of_its_proxy_and_goes_on_after_a_reload(
    browser: Browser, service: ServiceProcess, core: Core, tmp_path: Path
) -> None:
    plan = await OutsidePlan.begin(core, "hello")
    with Nginx(tmp_path / "nginx", service.url) as nginx:
        (nginx.pages / "follow.html").write_text(PAGE % SNIPPET)
        browser.open(f"{nginx.url}/pages/follow.html")
        assert shown_up_to(browser, 2) == [2]  # it does not ask for plan.submitted

        service.kill()
        until(lambda: '" 502 ' in nginx.access_log, 30, "the browser gets 502")
        await plan.complete()  # unseen
        service.start()
        assert shown_up_to(browser, 3) == [2, 3]

        browser.reload()
        finished = await plan.finish()
        assert shown_up_to(browser, finished) == [finished]
