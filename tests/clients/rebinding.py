"""A browser's visit to an attacker's site whose name changes its address, in a network of its own.

Runs as a program inside of new user, network and mount namespaces (see `test_rebinding`): loopback
is the whole network, and the one name server is the attacker's. It starts an instance, lets a
Chromium visit the attacker, and prints as JSON what the pages could read and which plans there are.
"""

import fcntl
import json
import socket
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from tests.clients.browser import Browser
from tests.clients.other_site import FORM, PLAN, SECRET, Attacker, plans, tried
from tests.faults.service_process import ServiceProcess
from tests.programs import program
from tests.waiting import until

NAME = b"\x04evil\x04test\0"
NAME_SERVER, ATTACKER, INSTANCE = "127.0.0.53", "127.0.0.2", "127.0.0.1"
ADDRESS_TYPE = b"\0\x01\0\x01"
IS_UP = 1
ASKED_WITHIN_S = 90.0
FORGET = """
    const button = document.getElementById("dns-view-clear-cache");
    if (button) button.click();
    return Boolean(button);
"""
ASK_AGAIN = "fetch('/', {cache: 'no-store'}).catch(() => null)"
READ_FLAGS, WRITE_FLAGS = 0x8913, 0x8914  # SIOCGIFFLAGS, SIOCSIFFLAGS


class NameServer:
    """Answers that evil.test is at ``address``, for no time; it knows no other name."""

    def __init__(self) -> None:
        self.address = ATTACKER
        self.answered: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((NAME_SERVER, 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            asked, client = self._socket.recvfrom(4_096)
            with suppress(OSError):
                self._socket.sendto(self._answer(asked), client)

    def _answer(self, asked: bytes) -> bytes:
        """A message of RFC 1035: the head, the question, and the address if there is one."""
        end = asked.index(b"\0", 12) + 5
        known = asked[12:end].lower().startswith(NAME)
        wanted = known and asked[end - 4 : end] == ADDRESS_TYPE
        flags = 0x8580 if known else 0x8583  # an authoritative answer; 3: no such name
        head = asked[:2] + struct.pack("!HHHHH", flags, 1, int(wanted), 0, 0)
        if not wanted:
            return head + asked[12:end]
        self.answered.append(self.address)
        data = struct.pack("!IH", 0, 4) + socket.inet_aton(self.address)  # to be kept for 0 s
        return head + asked[12:end] + b"\xc0\x0c" + ADDRESS_TYPE + data


def own_network(folder: Path) -> None:
    """Bring loopback up, and name the attacker's server as the only one."""
    with socket.socket() as any_socket:
        wish = struct.pack("16sh", b"lo", 0) + bytes(22)
        flags = struct.unpack_from("16sh", fcntl.ioctl(any_socket, READ_FLAGS, wish))[1]
        fcntl.ioctl(any_socket, WRITE_FLAGS, struct.pack("16sh", b"lo", flags | IS_UP) + bytes(22))
    servers = folder / "resolv.conf"
    servers.write_text(f"nameserver {NAME_SERVER}\n")
    mount = program("mount")
    subprocess.run((mount, "--bind", str(servers), "/etc/resolv.conf"), check=True)


def rebind(browser: Browser, names: NameServer) -> None:
    """Let the name stand for the instance; returns when the browser has asked for it again.

    By itself Chromium keeps an address for a minute, whatever the server says: an attacker waits.
    """
    names.address = INSTANCE
    site = browser.tab
    internals = browser.new_tab()
    browser.open("chrome://net-internals/#dns")
    browser.until(FORGET, "it forgets the addresses of names")
    browser.close_tab(internals)
    browser.go_to(site)

    def asked_again() -> bool:
        browser.run(ASK_AGAIN)
        return INSTANCE in names.answered

    until(asked_again, ASKED_WITHIN_S, "the browser asks for the name again")


def visit(service: ServiceProcess, names: NameServer) -> dict[str, Any]:
    """All attacks, one after the other."""
    port = httpx.URL(service.url).port or 0
    submitted = {"id": SECRET, "tasks": [{"id": "a", "kind": "outside"}]}
    httpx.post(f"{service.url}/v1/plans", json=submitted).raise_for_status()
    with Browser() as browser:
        rebinding = Attacker(ATTACKER, port, (INSTANCE, port))
        browser.open(f"http://evil.test:{port}/")
        rebinding.close()
        rebind(browser, names)
        rebound = tried(browser, "")  # its own origin, to the browser
        after_rebinding = plans(service.url)
        elsewhere = Attacker(INSTANCE, 0, (INSTANCE, port))
        browser.open(f"http://{INSTANCE}:{elsewhere.port}/")
        other_port = tried(browser, service.url)
        for address in ("0.0.0.0", INSTANCE):  # noqa: S104 - a browser asks there
            browser.open(f"http://{INSTANCE}:{elsewhere.port}/")
            browser.run(FORM, f"http://{address}:{port}/v1/plans", PLAN)
            browser.until("return window.submitted >= 1", "the form was sent or refused")
        elsewhere.close()
    return {
        "addresses": names.answered,
        "rebound": rebound,
        "after_rebinding": after_rebinding,
        "other_port": other_port,
        "plans": plans(service.url),
    }


def main(folder: Path, module: str) -> None:
    """Print what a visitor of the attacker's site has lost to an instance that ``module`` runs."""
    own_network(folder)
    names = NameServer()
    service = ServiceProcess(folder / "data", roles="api", module=module)
    try:
        sys.stdout.write(json.dumps(visit(service.start(), names)))
    finally:
        service.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
