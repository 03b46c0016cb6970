"""Pages of other sites, in a real Chromium, neither read nor change anything: rebinding included.

The attacker's server listens on the instance's port at another address of loopback. First it serves
its page, then it passes every byte on to the instance: what the browser sends reaches the instance
as it does when a name's address is changed (DNS rebinding), without a wait for the browser's cache.
"""

import http.client
from collections.abc import Iterator

import httpx
import pytest

from tests.clients.browser import Browser
from tests.clients.other_site import FORM, PLAN, SECRET, Attacker, plans, tried
from tests.faults.service_process import ServiceProcess


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
    assert plans(service.url) == [(SECRET, "READY")]


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
    assert plans(service.url) == [(SECRET, "READY")]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1"])  # noqa: S104 - a browser asks there
def test_a_form_of_another_page_changes_nothing(
    visitor: Browser, service: ServiceProcess, instance: tuple[str, int], address: str
) -> None:
    attacker = Attacker("127.0.0.1", 0, instance)
    try:
        visitor.open(f"http://127.0.0.1:{attacker.port}/")
        visitor.run(FORM, f"http://{address}:{instance[1]}/v1/plans", PLAN)
        visitor.until("return window.submitted >= 1", "the form was sent or refused")
    finally:
        attacker.close()
    assert plans(service.url) == [(SECRET, "READY")]
