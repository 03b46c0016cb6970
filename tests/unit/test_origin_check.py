"""The origin check refuses what another site's page or a proxy can have caused; all else passes."""

import re
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from service.http.origin_check import OriginCheck
from service.http.problems import RequestRefused
from tests.unit.http_world import PLAN, FakeCore

PORT = 8000
JSON = {"content-type": "application/json"}


def refusal(
    *headers: tuple[str, str],
    tokens: bool = False,
    allowed: tuple[str, ...] = (),
    server: tuple[str, int] = ("127.0.0.1", PORT),
    scheme: str = "http",
    version: str = "1.1",
) -> str | None:
    """The code of the refusal of a request with exactly these headers; None if it is admitted."""
    scope: Any = {
        "type": "http",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
        "server": server,
        "scheme": scheme,
        "http_version": version,
    }
    try:
        OriginCheck(tokens=tokens, allowed_hosts=allowed).check(scope)
    except RequestRefused as refused:
        return refused.code
    return None


@pytest.mark.parametrize(
    "host", ["localhost:8000", "LocalHost:8000", "127.0.0.1:8000", "127.8.8.8:8000", "[::1]:8000"]
)
def test_without_tokens_the_names_of_loopback_are_answered(host: str) -> None:
    assert refusal(("Host", host)) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.test:8000", "localhost", "localhost:8001", "127.0.0.1.evil.test:8000", "0.0.0.0:8000",
        "localhost.evil.test:8000", "evil.localhost:8000", "10.0.0.1:8000", "[::2]:8000",
        "2130706433:8000", "127.1:8000", "localhost.:8000",
    ],
)  # fmt: skip
def test_without_tokens_no_other_name_is_answered(host: str) -> None:
    assert refusal(("Host", host)) == "forbidden"


@pytest.mark.parametrize(
    "host",
    ["", "localhost:", "localhost:8000@evil.test", "a b:8000", "[::1:8000", "h\xe4:1", "x" * 300],
)
def test_a_host_that_is_none_is_a_bad_request(host: str) -> None:
    assert refusal(("Host", host)) == "invalid_request"


def test_host_is_given_once() -> None:
    here = ("Host", "localhost:8000")
    assert refusal() == "invalid_request"
    assert refusal(here, here) == "invalid_request"
    assert refusal(tokens=True) == "invalid_request"
    assert refusal(here, here, tokens=True) == "invalid_request"
    assert refusal(version="1.0") is None  # a balancer's probe; no browser speaks HTTP/1.0


def test_the_default_port_may_be_left_out() -> None:
    assert refusal(("Host", "localhost"), server=("127.0.0.1", 80)) is None
    assert refusal(("Host", "localhost"), server=("127.0.0.1", 443), scheme="https") is None


def test_an_address_that_was_reached_is_answered_and_other_names_by_setting_only() -> None:
    reached = ("10.0.0.1", PORT)
    names = ("holdfast.example",)
    assert refusal(("Host", "10.0.0.1:8000"), server=reached, tokens=True, allowed=names) is None
    assert refusal(("Host", "10.0.0.1:8000"), server=("::ffff:10.0.0.1", PORT)) is None
    assert refusal(("Host", "anything:1"), server=reached, tokens=True) is None
    assert refusal(("Host", "Holdfast.Example"), allowed=names) is None
    assert refusal(("Host", "holdfast.example:444"), tokens=True, allowed=names) is None
    assert refusal(("Host", "evil.test:8000"), tokens=True, allowed=names) == "forbidden"


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize(
    "site", ["cross-site", "same-site", "Cross-Site", " cross-site", "none, cross-site", "", "x"]
)
def test_pages_of_other_sites_are_refused(site: str, *, tokens: bool) -> None:
    here = ("Host", "localhost:8000")
    assert refusal(here, ("Sec-Fetch-Site", site), tokens=tokens) == "forbidden"
    twice = (("Sec-Fetch-Site", "none"), ("Sec-Fetch-Site", site))
    assert refusal(here, *twice, tokens=tokens) == "forbidden"


@pytest.mark.parametrize("site", ["same-origin", "none", "None", " SAME-ORIGIN "])
def test_pages_of_this_site_and_what_a_person_typed_pass(site: str) -> None:
    assert refusal(("Host", "localhost:8000"), ("Sec-Fetch-Site", site)) is None


@pytest.mark.parametrize(
    ("host", "origin", "scheme", "admitted"),
    [
        ("localhost:8000", "http://localhost:8000", "http", True),
        ("localhost:8000", "http://LOCALHOST:8000", "http", True),
        ("h.example", "https://h.example", "http", True),  # TLS ends in a proxy
        ("h.example:443", "https://h.example", "http", True),
        ("h.example", "http://h.example:80", "http", True),
        ("h.example", "https://h.example", "https", True),
        ("h.example", "http://h.example", "https", False),
        ("h.example", "chrome-extension://h.example", "http", False),
        ("localhost:8000", "http://localhost:8001", "http", False),
        ("localhost:8000", "http://127.0.0.1:8000", "http", False),
        ("localhost:8000", "http://evil.test:8000", "http", False),
        ("localhost:8000", "http://localhost:8000.evil.test", "http", False),
        ("localhost:8000", "null", "http", False),
        ("localhost:8000", "", "http", False),
        ("localhost:8000", "localhost:8000", "http", False),
        ("localhost:8000", "http://x@localhost:8000", "http", False),
    ],
)
def test_an_origin_matches_the_host(host: str, origin: str, scheme: str, *, admitted: bool) -> None:
    given = (("Host", host), ("Origin", origin))
    found = refusal(*given, tokens=True, scheme=scheme, server=("127.0.0.1", PORT))
    assert found == (None if admitted else "forbidden")
    reverse = given[::-1]
    assert refusal(*reverse, tokens=True, scheme=scheme) == (None if admitted else "forbidden")


@pytest.mark.parametrize(
    "name", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Q"]
)
def test_a_proxy_needs_tokens(name: str) -> None:
    given = (("Host", "localhost:8000"), (name, "10.0.0.1"))
    assert refusal(*given) == "forbidden"
    assert refusal(*given, tokens=True) is None


# -- in the application -----------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/plans", "/nowhere", "/healthz", "/schema/openapi.json"])
async def test_the_check_runs_before_every_route(path: str) -> None:
    core = FakeCore()
    async with AsyncTestClient(core.app()) as client:
        for header in ({"host": "evil.test"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
            answer = await client.get(path, headers=header)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), header
            assert answer.headers["x-request-id"]
    assert core.asked == []


async def test_a_proxy_is_told_why_it_is_refused() -> None:
    async with AsyncTestClient(FakeCore().app()) as client:
        answer = await client.get("/healthz", headers={"x-forwarded-for": "10.0.0.1"})
    assert "auth.tokens_file" in answer.json()["detail"]


async def test_every_route_that_changes_something_demands_json_even_without_a_body() -> None:
    core = FakeCore(PLAN)
    app = core.app()
    writing = [
        (method, re.sub(r"{[^}]+}", "p", path))
        for path, item in (app.litestar.openapi_schema.paths or {}).items()
        for method in ("POST", "PUT", "PATCH", "DELETE")
        if getattr(item, method.lower())
    ]
    assert len(writing) >= 10
    async with AsyncTestClient(app) as client:
        for method, path in writing:
            for headers in ({}, {"content-type": "text/plain"}):
                answer = await client.request(method, path, headers=headers)
                assert answer.status_code == 400, path
                assert answer.json()["detail"].startswith("Content-Type"), path
        assert core.asked == []
        assert (await client.post("/v1/plans/p/pause", headers=JSON)).status_code == 200
