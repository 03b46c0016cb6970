"""A site of an attacker: its server, and what its page tries on an instance."""

import socket
import threading
from contextlib import suppress
from typing import Any

import httpx

from tests.clients.browser import Browser

SECRET = "the-plan-that-no-other-site-reads"  # noqa: S105 - an id
PLAN = '{"id": "evil", "tasks": [{"id": "a", "kind": "echo"}]}'
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


def plans(url: str) -> list[Any]:
    """Id and status of each plan."""
    found = httpx.get(f"{url}/v1/plans").json()["items"]
    return [(plan["plan_id"], plan["status"]) for plan in found]


def tried(browser: Browser, base: str) -> list[str]:
    """What the page could read on each of its ways."""
    tries = browser.run(TRY, base, SECRET)
    browser.until(f"return said.length >= {tries}", f"{tries} tries have ended")
    return browser.run("return said")
