"""Pages of other sites, in a real Chromium, neither read nor change anything: rebinding included.

The attacker's server listens on the instance's port at another address of loopback. First it serves
its page, then it passes every byte on to the instance: what the browser sends reaches the instance
as it does when a name's address is changed (DNS rebinding), without a wait for the browser's cache.
"""

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from tests.clients.browser import Browser
from tests.faults.service_process import ServiceProcess

SECRET = "the-plan-that-no-other-site-reads"  # noqa: S105 - an id
PAGE = b"<!doctype html><title>evil</title><body>evil</body>"
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
)
WITHIN_S = 20.0

# Each try is one entry of `said`: what the page could read, or the error that it got.
TRY = """
    const [base, secret] = arguments;
    window.said = [];
    const tell = (what) => said.push(String(what));
    const json = {"Content-Type": "application/json"};
    const plan = JSON.stringify({id: "evil", tasks: [{id: "a", kind: "echo"}]});
    const asked = [
        fetch(`${base}/v1/plans`), fetch(`${base}/v1/plans/${secret}`),
        fetch(`${base}/v1/plans`, {method: "POST", headers: json, body: plan}),
        fetch(`${base}/v1/plans`, {method: "POST", body: plan}),
        fetch(`${base}/v1/plans`, {method: "POST", mode: "no-cors", body: plan}),
        fetch(`${base}/v1/plans/${secret}/cancel`, {method: "POST", mode: "no-cors"}),
        fetch(`${base}/v1/plans/${secret}/cancel`, {method: "POST", headers: json}),
    ].map((answer) => answer.then((got) => got.text()).then(tell, tell));

    const source = new EventSource(`${base}/v1/events?after=0`);
    source.addEventListener("plan.submitted", (event) => tell(event.data));
    source.onerror = () => { source.close(); tell("no events"); };

    const look = (view) => {
        try { tell(view.document.documentElement.innerText); } catch (error) { tell(error); }
    };
    const frame = document.createElement("iframe");
    frame.onload = () => look(frame.contentWindow);
    frame.src = `${base}/v1/plans/${secret}`;
    document.body.append(frame);

    const popup = window.open(`${base}/v1/plans/${secret}`);
    setTimeout(() => { if (popup) { look(popup); popup.close(); } else tell("no popup"); }, 1500);
    return asked.length + 3;
"""
FORM = """
    const [action, plan] = arguments;
    const frame = document.createElement("iframe");
    frame.name = "target";
    frame.onload = () => { window.submitted = (window.submitted || 0) + 1; };
    document.body.append(frame);
    const form = document.createElement("form");
    Object.assign(form, {action, method: "POST", enctype: "text/plain", target: "target"});
    const input = document.createElement("input");
    input.name = plan.slice(0, -2) + ', "name": "';
    input.value = '"}';
    form.append(input);
    document.body.append(form);
    form.submit();
"""


class Attacker:
    """Serves its page; once `rebind` is called, passes each connection on to the instance."""

    def __init__(self, address: str, port: int, instance: tuple[str, int]) -> None:
        self._instance = instance
        self._rebound = threading.Event()
        self._listening = socket.create_server((address, port))
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def rebind(self) -> None:
        self._rebound.set()

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(WITHIN_S)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            if not self._rebound.is_set():
                client.recv(65_536)
                client.sendall(ANSWER % len(PAGE) + PAGE)
                return
            with socket.create_connection(self._instance) as there:
                back = threading.Thread(target=_copy, args=(there, client), daemon=True)
                back.start()
                _copy(client, there)
                back.join(WITHIN_S)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def visitor() -> Iterator[Browser]:
    """The browser of a person who visits a page of an attacker."""
    with Browser("--host-resolver-rules=MAP evil.test 127.0.0.2") as browser:
        yield browser


@pytest.fixture
def instance(service: ServiceProcess) -> tuple[str, int]:
    task = {"id": "a", "kind": "outside"}
    made = httpx.post(f"{service.url}/v1/plans", json={"id": SECRET, "tasks": [task]})
    assert made.status_code == http.client.CREATED
    url = httpx.URL(service.url)
    assert url.port
    return url.host, url.port


def plans(service: ServiceProcess) -> list[Any]:
    found = httpx.get(f"{service.url}/v1/plans").json()["items"]
    return [(plan["plan_id"], plan["status"]) for plan in found]


def tried(browser: Browser, base: str) -> list[str]:
    """What the page could read on each of its ways."""
    tries = browser.run(TRY, base, SECRET)
    browser.until(f"return said.length >= {tries}", f"{tries} tries have ended")
    return browser.run("return said")


@pytest.mark.timeout(120)
def test_a_rebound_name_reads_and_changes_nothing(
    visitor: Browser, service: ServiceProcess, instance: tuple[str, int]
) -> None:
    attacker = Attacker("127.0.0.2", instance[1], instance)
    try:
        visitor.open(f"http://evil.test:{instance[1]}/")
        assert visitor.run("return document.title") == "evil"
        attacker.rebind()
        said = tried(visitor, "")  # its own origin, to the browser
    finally:
        attacker.close()
    assert any("urn:holdfast:problem:forbidden" in each for each in said)  # it was the instance
    assert not [each for each in said if SECRET in each and "urn:holdfast:problem" not in each]
    assert plans(service) == [(SECRET, "READY")]


@pytest.mark.timeout(120)
def test_a_page_on_another_port_of_loopback_reads_and_changes_nothing(
    visitor: Browser, service: ServiceProcess, instance: tuple[str, int]
) -> None:
    attacker = Attacker("127.0.0.1", 0, instance)
    try:
        visitor.open(f"http://127.0.0.1:{attacker.port}/")
        said = tried(visitor, service.url)
    finally:
        attacker.close()
    assert not [each for each in said if '"plan_id"' in each]
    assert plans(service) == [(SECRET, "READY")]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1"])  # noqa: S104 - a browser asks there
def test_a_form_of_another_page_changes_nothing(
    visitor: Browser, service: ServiceProcess, instance: tuple[str, int], address: str
) -> None:
    attacker = Attacker("127.0.0.1", 0, instance)
    plan = '{"id": "evil", "tasks": [{"id": "a", "kind": "echo"}]}'
    try:
        visitor.open(f"http://127.0.0.1:{attacker.port}/")
        visitor.run(FORM, f"http://{address}:{instance[1]}/v1/plans", plan)
        visitor.until("return window.submitted >= 1", "the form was sent or refused")
    finally:
        attacker.close()
    assert plans(service) == [(SECRET, "READY")]
