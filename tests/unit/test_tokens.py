"""Tokens in force: how they are proved, read again, and what their end ends."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest
from litestar.testing import AsyncTestClient
from structlog.testing import capture_logs

from service.http.refused_tokens import RefusalLimits, RefusedTokens
from service.principals.tokens import REMEMBERED, SESSION_S, Tokens, WrongToken
from service.principals.tokens_edit import revoke_token
from service.settings.config import AuthSettings, Settings
from service.settings.loading import load_settings
from tests.busy import stretch
from tests.unit.http_world import FakeCore
from tests.unit.tokens_world import bearer, give


class Clock:
    """The time of day, as a test sets it."""

    now = 1_900_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


def change_roles(path: Path, name: str, role: str) -> None:
    old, new = (f'name = "{name}"\nroles = ["{each}"]' for each in ("read", role))
    path.write_text(path.read_text().replace(old, new))


def why(tokens: Tokens, credential: str) -> str:
    with pytest.raises(WrongToken) as wrong:
        tokens.of_token(credential.encode())
    return wrong.value.why


def test_a_token_proves_its_holder_and_nothing_else_does(path: Path) -> None:
    token, other = give(path, "a", "read"), give(path, "b", "read")
    tokens = Tokens(path)
    assert tokens.of_token(token.encode()).name == "a"
    assert why(tokens, token[:12] + other[12:]) == "wrong"
    assert why(tokens, "hf_00000000" + token[11:]) == "unknown"
    for cut in ("", "hf_", token[:-1], token + "A", token.upper(), token[3:]):
        assert why(tokens, cut) == "malformed"


def test_a_session_stands_for_its_token_until_it_ends(path: Path) -> None:
    clock = Clock()
    token = give(path, "a", "read")
    tokens = Tokens(path, clock)
    principal, cookie, seconds = tokens.sign_in(token.encode())
    assert (principal.name, seconds) == ("a", SESSION_S)
    assert token.split("_", 2)[2].encode() not in cookie
    another_instance = Tokens(path, clock)
    assert another_instance.of_session(cookie) == principal
    clock.now += SESSION_S
    with pytest.raises(WrongToken, match="expired"):
        tokens.of_session(cookie)


def test_a_session_is_not_longer_than_its_token(path: Path) -> None:
    clock = Clock()
    token = give(path, "a", "read", expires=datetime.fromtimestamp(clock.now + 60, UTC))
    tokens = Tokens(path, clock)
    _, cookie, seconds = tokens.sign_in(token.encode())
    assert seconds == 60
    clock.now += 60
    for prove, shown in ((tokens.of_token, token.encode()), (tokens.of_session, cookie)):
        with pytest.raises(WrongToken, match="expired"):
            prove(shown)


@pytest.mark.parametrize("end", ["revoked", "changed", "expired"])
async def test_a_session_that_was_proven_before_ends_with_its_token(path: Path, end: str) -> None:
    clock = Clock()
    token = give(path, "a", "read")
    give(path, "other", "read")
    tokens = Tokens(path, clock)
    cookie = tokens.sign_in(token.encode())[1]
    for _ in range(3):
        assert tokens.of_session(cookie).permissions == {"read"}
        with pytest.raises(WrongToken):
            tokens.of_session(cookie[:-3] + b"AAA")
    match end:
        case "revoked":
            revoke_token(path, token.split("_")[1])
        case "changed":
            change_roles(path, "a", "work")
        case _:
            clock.now += SESSION_S
    await tokens.look()
    if end == "changed":
        assert tokens.of_session(cookie).permissions == {"work"}
    else:
        with pytest.raises(WrongToken):
            tokens.of_session(cookie)


def test_many_sessions_are_all_known_and_few_of_them_are_remembered(path: Path) -> None:
    clock = Clock()
    token = give(path, "a", "read").encode()
    tokens = Tokens(path, clock)
    cookies: list[bytes] = []
    for _ in range(REMEMBERED + 10):
        clock.now += 1
        cookies.append(tokens.sign_in(token)[1])
    for _ in range(2):
        assert {tokens.of_session(each).name for each in cookies} == {"a"}
    assert len(tokens._sessions) == REMEMBERED  # noqa: SLF001 - its size shows nowhere else


async def test_a_token_that_is_revoked_changed_or_expired_ends_what_it_began(path: Path) -> None:
    clock = Clock()
    names = ("kept", "revoked", "changed", "signed in")
    given = {name: give(path, name.replace(" ", "-"), "read") for name in names}
    tokens = Tokens(path, clock)
    ended: list[str] = []
    for name in ("kept", "revoked", "changed"):
        principal = tokens.of_token(given[name].encode())
        tokens.when_ended(principal, lambda name=name: ended.append(name))
    session = tokens.sign_in(given["signed in"].encode())[0]
    tokens.when_ended(session, lambda: ended.append("session"))
    forgotten = tokens.when_ended(session, lambda: ended.append("forgotten"))
    forgotten()
    await tokens.look()
    assert not ended
    revoke_token(path, given["revoked"].split("_")[1])
    change_roles(path, "changed", "work")
    await tokens.look()
    assert sorted(ended) == ["changed", "revoked"]
    assert why(tokens, given["revoked"]) == "unknown"
    clock.now += SESSION_S
    await tokens.look()
    assert ended[2:] == ["session"]
    tokens.when_ended(session, lambda: ended.append("late"))
    assert ended[3:] == ["late"]


async def test_a_file_that_cannot_be_used_changes_nothing_and_is_named_once(path: Path) -> None:
    token = give(path, "a", "read")
    tokens = Tokens(path)
    for break_it in (lambda: path.chmod(0o644), lambda: path.write_text("x"), path.unlink):
        break_it()
        with capture_logs() as lines:
            await tokens.look()
            await tokens.look()
        assert [line["event"] for line in lines] == ["tokens_refused"]
        assert tokens.of_token(token.encode()).name == "a"
    second = give(path, "b", "read")
    await tokens.look()
    assert tokens.of_token(second.encode()).name == "b"


async def test_it_reads_again_when_it_is_asked_and_when_the_file_changes(path: Path) -> None:
    give(path, "a", "read")
    tokens = Tokens(path)
    running = asyncio.create_task(tokens.run())
    with capture_logs() as lines:
        tokens.read_again()
        async with asyncio.timeout(20):
            while not lines:
                await asyncio.sleep(0.01)
        token = give(path, "b", "read")
        async with asyncio.timeout(20):
            while len(lines) < 2:
                await asyncio.sleep(0.01)
    assert tokens.of_token(token.encode()).name == "b"
    running.cancel()


# -- what a wrong token costs -----------------------------------------------------------------


def guarded(path: Path) -> FakeCore:
    return FakeCore(settings=Settings(auth=AuthSettings(tokens_file=path)))


async def test_wrong_tokens_are_counted_and_audited_once_a_minute_and_address(path: Path) -> None:
    token = give(path, "a", "metrics")
    core = guarded(path)
    async with AsyncTestClient(core.app()) as client:
        for _ in range(3):
            refused = await client.get("/actuator/metrics", headers=bearer(token[:-3] + "AAA"))
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
        await client.get("/actuator/metrics")
        assert (await client.get("/actuator/metrics", headers=bearer(token))).status_code == 200
    shown = core.metrics.shown("agent.http.token.refused.total")
    assert shown is not None
    assert [value.value for value in shown.values] == [3]
    ((event, said),) = core.audited
    assert event == "token_refused"
    assert said["actual"]["token_id"] == token.split("_")[1]
    assert token[12:] not in str(said)


async def test_each_further_wrong_token_of_an_address_waits_longer_up_to_a_bound() -> None:
    now = [0.0]
    core = FakeCore()
    limits = RefusalLimits(first_pause_s=0.1, longest_pause_s=0.5, addresses=2)
    refused = RefusedTokens(core.metrics, core.audit, limits, lambda: now[0])  # type: ignore[arg-type]

    async def took(address: str) -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await refused.note(address, WrongToken("unknown"))
        return loop.time() - began

    waits = [await took("a") for _ in range(5)]
    assert waits[3] >= 0.5
    assert len(core.audited) == 1
    now[0] += 61
    assert await took("a") < 0.5 * stretch()
    assert [said["actual"]["count"] for _, said in core.audited] == [1, 5]
    for address in ("b", "c", "a"):  # two are remembered
        await took(address)
    assert len(core.audited) == 5


# -- sessions over HTTP -----------------------------------------------------------------------


async def test_signing_in_gives_a_cookie_that_scripts_and_other_sites_cannot_use(
    path: Path,
) -> None:
    token = give(path, "ann", "read", "submit", kinds=("a",))
    async with AsyncTestClient(guarded(path).app()) as client:
        signed_in = await client.post("/v1/session", json={"token": token})
        name, *flags = signed_in.headers["set-cookie"].split("; ")
        assert name.startswith("holdfast_session=")
        assert flags == ["Path=/", f"Max-Age={SESSION_S}", "HttpOnly", "SameSite=Strict"]
        who = (await client.get("/v1/session")).json()
        assert (who["name"], who["permissions"], who["kinds"]) == ("ann", ["read", "submit"], ["a"])
        assert who["expires_at"] == signed_in.json()["expires_at"]
        out = await client.request("DELETE", "/v1/session", json={})
        assert "Max-Age=0" in out.headers["set-cookie"]
        assert (await client.get("/v1/session")).status_code == 401
        wrong = await client.post("/v1/session", json={"token": token[:-3] + "AAA"})
        assert wrong.status_code == 401
        assert "set-cookie" not in wrong.headers


async def test_under_tls_the_cookie_is_secure(path: Path) -> None:
    token = give(path, "ann", "read")
    async with AsyncTestClient(guarded(path).app()) as client:
        headers = {"X-Forwarded-Proto": "https"}
        answer = await client.post("/v1/session", json={"token": token}, headers=headers)
    assert answer.headers["set-cookie"].endswith("; Secure")


async def test_without_tokens_there_is_nothing_to_sign_in_to() -> None:
    async with AsyncTestClient(FakeCore().app()) as client:
        assert (await client.post("/v1/session", json={"token": "x"})).status_code == 409
        who = (await client.get("/v1/session")).json()
    assert who["name"] is None
    assert "operate" in who["permissions"]


def test_an_executors_id_cannot_be_a_tokens_name(path: Path) -> None:
    give(path, "node-1", "work")
    flags = {"auth.tokens_file": str(path), "executor.instance_id": "node-1"}
    with pytest.raises(Exception, match=r"executor\.instance_id.*must hold a colon"):
        load_settings(environment={}, directory=path.parent, flags=flags)
    load_settings(
        environment={}, directory=path.parent, flags=flags | {"executor.instance_id": "node-1:a"}
    )
