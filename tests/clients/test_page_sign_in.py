"""With tokens the page asks for one once; the session ends with a sign-out, or with its token."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.core.core import Core
from service.principals.tokens_edit import revoke_token
from streams.plan.events import Submitted, TaskSpec
from tests.clients.browser import Browser
from tests.clients.page_world import click, grave_faults, reads, show
from tests.conftest import PrivateServer
from tests.faults.service_process import ServiceProcess
from tests.integration.sse_world import write
from tests.ports import free_port
from tests.unit.tokens_world import give

pytestmark = pytest.mark.timeout(180)

ASKS = "Sign in to Holdfast"


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


@pytest.fixture
def token(tokens: Path) -> str:
    """Of ann, who reads and operates."""
    return give(tokens, "ann", "operator")


@pytest.fixture
def guarded(
    private_nats: PrivateServer, tmp_path: Path, tokens: Path, token: str
) -> Iterator[ServiceProcess]:
    """An instance that asks for tokens."""
    assert token
    service = ServiceProcess(
        tmp_path / "guarded",
        nats_url=private_nats.url,
        roles="api",
        http__port=str(free_port()),
        auth__tokens_file=str(tokens),
    )
    yield service.start()
    service.stop()


def sign_in(browser: Browser, token: str) -> None:
    browser.until("return document.querySelector('input[name=token]')", "it asks for a token")
    browser.run(
        "const box = document.querySelector('input[name=token]'); box.value = arguments[0];"
        "box.dispatchEvent(new Event('input', {bubbles: true}));",
        token,
    )
    browser.until("return !document.querySelector('[type=submit]').disabled", "it may be sent")
    click(browser, "Sign in")


async def submitted(core: Core, plan: str) -> None:
    await write(core, plan, None, 0, Submitted(tasks=(TaskSpec(id="a", kind="outside"),)))


async def test_one_sign_in_opens_every_screen_and_the_stream_until_the_sign_out(
    alone: Browser, guarded: ServiceProcess, core: Core, token: str
) -> None:
    await submitted(core, "first")
    await asyncio.to_thread(show, alone, guarded, "plans")
    await asyncio.to_thread(reads, alone, ASKS)
    assert await asyncio.to_thread(grave_faults, alone) == []
    await asyncio.to_thread(sign_in, alone, f"{token}x")
    await asyncio.to_thread(alone.until, "return document.querySelector('[role=alert]')", "no")
    assert "first" not in await asyncio.to_thread(alone.run, "return document.body.innerText")

    await asyncio.to_thread(sign_in, alone, token)
    await asyncio.to_thread(reads, alone, "first")
    assert await asyncio.to_thread(alone.run, "return document.cookie") == "", "no script has it"
    await submitted(core, "second")
    await asyncio.to_thread(reads, alone, "second")
    for screen, text in (("plans/first", "outside"), ("workers", "Workers"), ("audit", "Audit")):
        await asyncio.to_thread(show, alone, guarded, screen)
        await asyncio.to_thread(reads, alone, text)
    await asyncio.to_thread(click, alone, "?")
    await asyncio.to_thread(alone.until, "return document.querySelector('dialog[open]')", "keys")
    assert await asyncio.to_thread(grave_faults, alone) == []
    await asyncio.to_thread(click, alone, "Close")

    await asyncio.to_thread(click, alone, "Sign out")
    await asyncio.to_thread(reads, alone, ASKS)
    await asyncio.to_thread(alone.reload)
    await asyncio.to_thread(reads, alone, ASKS)


async def test_a_page_whose_token_is_revoked_asks_for_another(
    alone: Browser, guarded: ServiceProcess, tokens: Path, token: str
) -> None:
    await asyncio.to_thread(show, alone, guarded, "plans")
    await asyncio.to_thread(sign_in, alone, token)
    await asyncio.to_thread(
        alone.until, "return document.querySelector('.live.is-live')", "events arrive"
    )
    give(tokens, "bea", "operator")  # the last token cannot be revoked
    revoke_token(tokens, token.split("_")[1])
    await asyncio.to_thread(reads, alone, ASKS)
