"""Every route asks for one permission, and each credential reaches the routes of its permissions.

The table is made of the application's own routes, so a new route is in it.
"""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute
from litestar.testing import AsyncTestClient

from service.http.guards import requires
from service.principals.permissions import PERMISSIONS, Permission
from service.principals.session import session_of
from service.principals.tokens_edit import revoke_token
from service.principals.tokens_file import read_tokens
from service.settings.config import AuthSettings, Settings
from tests.unit.http_world import FakeCore
from tests.unit.tokens_world import PAST, bearer, give

# What anyone may ask: probes, the ping, signing in and out, the document of the API, and the files
# of the page, which hold no data.
OPEN = {
    "GET /", "GET /page/{path}", "GET /healthz", "GET /readyz", "OPTIONS /",
    "POST /v1/session", "DELETE /v1/session",
    "GET /schema", "GET /schema/{path}", "GET /schema/openapi.json",
}  # fmt: skip
FAR = datetime(2090, 1, 1, tzinfo=UTC)
# Answers any principal, whatever its permissions.
ANY = "GET /v1/session"

Headers = dict[str, str]


def routes() -> Iterator[tuple[str, str, Permission | None, HTTPRouteHandler]]:
    """Method and path of every route, the permission that it asks for, and its handler."""
    for route in FakeCore().app().litestar.routes:
        assert isinstance(route, HTTPRoute), f"{route.path} is no HTTP route: who guards it?"
        for handler in route.route_handlers:
            guards = [each for each in handler.guards or () if isinstance(each, requires)]
            path = route.path_format
            for method in handler.http_methods - ({"OPTIONS"} if path != "/" else set()):
                if f"{method} {path}" not in OPEN:
                    assert len(guards) == 1, f"{method} {path} asks for no permission"
                yield method, path, guards[0].permission if guards else None, handler


ROUTES: list[tuple[str, str, Permission | None]] = [
    (method, path, permission) for method, path, permission, _ in routes()
]


def test_only_the_named_routes_are_open() -> None:
    unguarded = {f"{method} {path}" for method, path, permission in ROUTES if permission is None}
    assert unguarded == OPEN | {ANY}
    assert {permission for _, _, permission in ROUTES} == {*PERMISSIONS, None}


def test_a_route_that_changes_something_asks_for_more_than_reading() -> None:
    for method, path, permission in ROUTES:
        reads = permission in ("read", "metrics")
        assert (method == "GET") == reads or permission is None, f"{method} {path}"


def test_a_worker_names_its_owner_on_every_route_that_it_may_use() -> None:
    for method, path, permission, handler in routes():
        if permission != "work":
            continue
        body: Any = handler.parsed_data_field
        fields = msgspec.structs.fields(body.annotation) if body is not None else ()
        owner = [each for each in fields if each.name == "owner" and each.required]
        assert owner or "{owner" in path, f"{method} {path}: for whom does the worker speak?"


# -- the table --------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


@pytest.fixture
async def credentials(path: Path) -> dict[tuple[Permission, str], str]:
    """A token for each permission in each state; ``wrong`` has the id of a good one.

    Beside them cookies of sessions that were right: one has expired, one's token was revoked.
    """
    made: dict[tuple[Permission, str], str] = {}
    for each in PERMISSIONS:
        good = made[each, "bearer"] = give(path, f"{each}-er", each)
        made[each, "wrong"] = good[:-3] + ("AAA" if good[-3:] != "AAA" else "BBB")
        made[each, "expired"] = give(path, f"{each}-er", each, expires=PAST)
        made[each, "revoked"] = give(path, f"{each}-er", each)
        made[each, "a cookie that has expired"] = _cookie(path, good, PAST)
        made[each, "a cookie of a revoked token"] = _cookie(path, made[each, "revoked"])
        revoke_token(path, made[each, "revoked"].split("_")[1])
    return made


@pytest.fixture
async def client(
    path: Path,
    credentials: dict[tuple[Permission, str], str],  # noqa: ARG001 - it writes the file
) -> AsyncIterator[httpx.AsyncClient]:
    core = FakeCore(settings=Settings(auth=AuthSettings(tokens_file=path)))
    async with AsyncTestClient(core.app(), raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize("held", PERMISSIONS)
async def test_each_credential_reaches_the_routes_of_its_permission_only(
    client: httpx.AsyncClient, credentials: dict[tuple[Permission, str], str], held: Permission
) -> None:
    signed_in = await client.post("/v1/session", json={"token": credentials[held, "bearer"]})
    cookie = signed_in.headers["set-cookie"].partition(";")[0]
    client.cookies.clear()
    shown: dict[str, Headers] = {
        "none": {},
        "wrong": bearer(credentials[held, "wrong"]),
        "expired": bearer(credentials[held, "expired"]),
        "revoked": bearer(credentials[held, "revoked"]),
        "bearer": bearer(credentials[held, "bearer"]),
        "cookie": {"Cookie": cookie},
        **{
            state: {"Cookie": credentials[held, state]}
            for state in ("a cookie that has expired", "a cookie of a revoked token")
        },
        "a cookie of another session": {"Cookie": cookie[:-3] + "AAA"},
        "a longer cookie": {"Cookie": _with_later_end(cookie)},
    }
    wrong: list[str] = []
    for method, path, permission in ROUTES:
        for state, headers in shown.items():
            status = await _status(client, method, path, headers)
            expected = _expected(f"{method} {path}", permission, held, state)
            if (status if status in (401, 403) else "permitted") != expected:
                wrong.append(f"{method} {path} {state}: {status}, not {expected}")
    assert not wrong


def _expected(route: str, permission: Permission | None, held: Permission, state: str) -> int | str:
    known = state in ("bearer", "cookie")
    if route in OPEN or (known and (permission == held or route == ANY)):
        return "permitted"
    return 403 if known else 401


async def _status(client: httpx.AsyncClient, method: str, path: str, headers: Headers) -> int:
    path = path.replace("{owner}", "work-er")
    for name in ("plan_id", "task_id", "name", "path"):
        path = path.replace(f"{{{name}}}", "x")
    if method in {"OPTIONS", "GET"}:
        answer = await client.request(method, path, headers=headers)
    else:
        answer = await client.request(method, path, headers=headers, json={})
    return answer.status_code


def _cookie(path: Path, token: str, end: datetime = FAR) -> str:
    """A session's cookie as an instance made it while the token was in force."""
    _, token_id, secret = token.split("_", 2)
    principal = read_tokens(path)[0][token_id]
    session = session_of(principal, secret.encode(), int(end.timestamp()))
    return f"holdfast_session={session.decode()}"


def _with_later_end(cookie: str) -> str:
    token_id, end, proof = cookie.split(".")
    return f"{token_id}.{int(end) + 1}.{proof}"
