"""A headless Chromium, driven over the WebDriver protocol: pages, scripts, and what they show."""

import base64
import contextlib
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from tests.clients.webdriver import start_driver
from tests.programs import program

ANSWER_S = 60.0
ALIVE_S = 10.0
END_S = 10.0
WAIT_S = 1.0  # a page waits so long before it is asked again
LOOK_MS = 20
# A question from outside costs as much processor time as a hundred looks of the page's own.
UNTIL = f"""
    const [wait] = arguments, end = performance.now() + wait * 1000;
    const condition = () => {{ %s }};
    return new Promise((answer, refuse) => {{
        const look = () => {{
            try {{
                const found = condition();
                if (found || performance.now() > end) answer(found || null);
                else setTimeout(look, {LOOK_MS});
            }} catch (error) {{
                refuse(error);
            }}
        }};
        look();
    }});
"""
SIZE = 1360, 950

FLAGS = (
    "--window-size={},{}".format(*SIZE),
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-prefers-reduced-motion",  # no processor time for what moves
)


class Browser:
    """One tab. Scripts run as function bodies: what they ``return`` comes back as JSON."""

    def __init__(self, *flags: str) -> None:
        """``flags`` are Chromium's, beyond those of every test."""
        self._flags = flags
        self._driver = program("chromedriver")
        self._chromium = program("chromium")
        # Not pytest's folder: its path is too long for the sockets that Chromium keeps there.
        self._folder = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        self._client: httpx.Client | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._session = ""
        self._size = SIZE

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _start(self) -> None:
        self._process, port = start_driver(self._driver, Path(self._folder.name))
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=ANSWER_S)
        options = {
            "binary": self._chromium,
            "args": [*FLAGS, *self._flags, f"--user-data-dir={self._folder.name}/profile"],
        }
        wanted = {"alwaysMatch": {"goog:chromeOptions": options}}
        self._session = self._ask("POST", "/session", capabilities=wanted)["sessionId"]

    def end(self) -> None:
        """End the browser and its driver, and remove what they have written."""
        if self._process is not None:
            started = _descendants(self._process.pid)
            with contextlib.suppress(httpx.HTTPError, AssertionError):  # it is ended in any case
                self._ask("DELETE", f"/session/{self._session}")
            for each in started:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            self._process.kill()
            self._process.wait(END_S)
            psutil.wait_procs(started, END_S)
        if self._client is not None:
            self._client.close()
        self._folder.cleanup()

    @property
    def answers(self) -> bool:
        """Whether it has a tab that can be driven."""
        assert self._client is not None, "it has not begun"
        try:
            answer = self._client.get(f"/session/{self._session}/window", timeout=ALIVE_S)
        except httpx.HTTPError:
            return False
        return answer.is_success

    def open(self, url: str) -> None:
        """Load a page, and wait for it."""
        self._tell("/url", url=url)

    def reload(self) -> None:
        """Load the page again, and wait for it; its scripts begin anew."""
        self._tell("/refresh")

    def clear(self) -> None:
        """One tab of the usual size, with an empty page; complaints until now are forgotten."""
        first, *others = self._ask("GET", f"/session/{self._session}/window/handles")
        for each in others:
            self.close_tab(each)
        self.go_to(first)
        self.open("about:blank")
        self.resize(*SIZE)
        self.complaints()

    def new_tab(self) -> str:
        """Open another tab and go on in it; answers its handle."""
        handle: str = self._tell("/window/new", type="tab")["handle"]
        self.go_to(handle)
        return handle

    @property
    def tab(self) -> str:
        """The handle of the tab that is shown."""
        handle: str = self._ask("GET", f"/session/{self._session}/window")
        return handle

    def go_to(self, tab: str) -> None:
        """Go on in another tab."""
        self._tell("/window", handle=tab)

    def close_tab(self, tab: str) -> None:
        """Close it, and go on in the first one."""
        self.go_to(tab)
        left = self._ask("DELETE", f"/session/{self._session}/window")
        self.go_to(left[0])

    def resize(self, width: int, height: int) -> None:
        """Make the window as large, in pixels."""
        if self._size != (width, height):
            self._tell("/window/rect", width=width, height=height)
            self._size = (width, height)

    def screenshot(self) -> bytes:
        """What is seen now, as PNG."""
        return base64.b64decode(self._ask("GET", f"/session/{self._session}/screenshot"))

    def complaints(self) -> list[str]:
        """What the browser has logged since the last call: errors, refusals of its policy."""
        entries = self._tell("/se/log", type="browser")
        return [each["message"] for each in entries if each["level"] in {"SEVERE", "WARNING"}]

    def run(self, script: str, *arguments: object) -> Any:
        """Run a script in the page; answers what it returns."""
        return self._tell("/execute/sync", script=script, args=list(arguments))

    def before_each_page(self, script: str) -> None:
        """Run a script at the beginning of each page that is opened from now on."""
        self.devtools("Page.addScriptToEvaluateOnNewDocument", source=script)

    def devtools(self, command: str, **parameters: object) -> Any:
        """A command of Chromium's own protocol, and its answer."""
        return self._tell("/goog/cdp/execute", cmd=command, params=parameters)

    def until(self, script: str, what: str, within_s: float = 30.0) -> Any:
        """The first true thing that the script returns."""
        deadline = time.monotonic() + within_s
        while not (answer := self.run(UNTIL % script, WAIT_S)):
            assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        return answer

    def _tell(self, path: str, **content: object) -> Any:
        return self._ask("POST", f"/session/{self._session}{path}", **content)

    def _ask(self, method: str, path: str, **content: object) -> Any:
        assert self._client is not None, "it has not begun"
        answer = self._client.request(method, path, json=content if method == "POST" else None)
        value = answer.json()["value"]
        assert answer.is_success, value
        return value


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
