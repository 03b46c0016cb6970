"""Several Holdfasts on one NATS: a prefix of names keeps them apart, a domain is where one asks."""

import asyncio
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import nats
import pytest

from streams.jetstream.access import Credentials
from streams.jetstream.audit_stream import TrailEntry
from streams.jetstream.drafts import DEFAULT_LIMITS, AppenderLimits
from streams.jetstream.log import JetStreamLog
from streams.jetstream.names import Names
from streams.jetstream.read_only import Inspection
from streams.log import Appended, Draft, Fact, LogUnavailable, TopologyMismatch
from streams.plan.events import Paused
from streams.subjects import audit_subject
from tests.conftest import PrivateServer


async def connected(
    url: str, names: Names, within_s: float = 10.0, limits: AppenderLimits = DEFAULT_LIMITS
) -> JetStreamLog:
    return await JetStreamLog.connect(
        url, access=Credentials(names=names), connect_timeout_s=within_s, limits=limits
    )


async def write(log: JetStreamLog, plan_id: str) -> None:
    """A fact, a batch of facts, and an audit entry."""
    appended = await log.append(
        Draft(plan_id=plan_id, task_id=None, expected=0, events=(Paused(reason="one"),))
    )
    assert isinstance(appended, Appended)
    several = tuple(Paused(reason=f"{number}") for number in range(20))
    draft = Draft(plan_id=plan_id, task_id=None, expected=appended.sequence, events=several)
    assert isinstance(await log.append(draft), Appended)
    subject = audit_subject("claimed", plan_id, None)
    entry = TrailEntry(id=uuid4().hex, event="claimed", subject=subject, payload=b"{}")
    assert await log.trail.write([entry]) == [1]


async def plans_in(log: JetStreamLog) -> set[str]:
    """Those that every way of reading shows, and that all of them show alike."""
    scanned = await log.scan(0, 1_000)
    async for followed in log.follow(0):
        assert followed == scanned[: len(followed)]
        break
    facts = [fact for fact in scanned if isinstance(fact, Fact)]
    assert facts == scanned
    found = {fact.plan_id for fact in facts}
    for plan_id in found:
        assert await log.read(plan_id) == [each for each in facts if each.plan_id == plan_id]
        assert await log.first_of(plan_id) == scanned[0]
        assert await log.last_of(plan_id) == scanned[-1]
    return found


async def test_two_prefixes_on_one_server_do_not_see_each_other(
    private_nats: PrivateServer,
) -> None:
    for prefix in ("", "green", "blue-2"):
        log = await connected(private_nats.url, Names(prefix))
        await write(log, f"plan-of-{prefix}")
        assert await plans_in(log) == {f"plan-of-{prefix}"}
        (entry,) = await log.trail.read(0, 10)
        assert entry.subject == audit_subject("claimed", f"plan-of-{prefix}", None)
        await log.close()
        access = Credentials(names=Names(prefix))
        inspection = await Inspection.open(private_nats.url, timeout_s=5, access=access)
        assert len(await inspection.audited("claimed", 0, 10)) == 1
        await inspection.close()
    client = await nats.connect(private_nats.url)
    streams = {each.config.name: each.config for each in await client.jetstream().streams_info()}
    assert set(streams) == {
        *("PLANS", "AUDIT", "green-PLANS", "green-AUDIT", "blue-2-PLANS", "blue-2-AUDIT")
    }
    assert streams["green-PLANS"].subjects == ["green.plans.>"]
    await client.close()


async def test_a_foreign_stream_with_our_subjects_is_named_with_what_helps(
    private_nats: PrivateServer,
) -> None:
    client = await nats.connect(private_nats.url)
    await client.jetstream().add_stream(name="OTHER", subjects=["plans.>"])
    with pytest.raises(TopologyMismatch, match=r"overlap.*Set nats\.prefix"):
        await connected(private_nats.url, Names())
    log = await connected(private_nats.url, Names("ours"))
    await write(log, "p")
    await log.close()
    await client.close()


async def test_a_domain_is_asked_by_its_name(
    start_nats: Callable[..., PrivateServer], tmp_path: Path
) -> None:
    configuration = tmp_path / "domain.conf"
    configuration.write_text("jetstream { domain: north }\n", encoding="utf-8")
    server = start_nats(configuration)
    log = await connected(server.url, Names("green", "north"))
    await write(log, "p")
    assert await plans_in(log) == {"p"}
    await log.close()
    with pytest.raises(LogUnavailable, match=r"no such domain \(nats\.domain\)"):
        await connected(server.url, Names(domain="south"), within_s=2)


@pytest.mark.parametrize("denied", ["$JS.API.STREAM.INFO.PLANS", "$JS.API.STREAM.CREATE.>"])
async def test_a_permission_that_the_account_lacks_is_named(
    start_nats: Callable[..., PrivateServer], tmp_path: Path, denied: str
) -> None:
    rights = json.dumps({"publish": {"deny": [denied]}})
    user = f"{{ user: u, password: p, permissions: {rights} }}"
    configuration = tmp_path / "denied.conf"
    configuration.write_text(
        f"jetstream: enabled\nauthorization {{ users: [{user}] }}\nno_auth_user: u\n",
        encoding="utf-8",
    )
    with pytest.raises(LogUnavailable, match=r"(?i)the server refuses it.*permissions violation"):
        await connected(start_nats(configuration).url, Names(), within_s=2)


REFUSALS = {
    "to ask": {"publish": {"deny": ["$JS.API.STREAM.MSG.GET.*", "$JS.API.DIRECT.GET.>"]}},
    "to write": {"publish": {"deny": ["plans.>"]}},
    "to hear answers": {"subscribe": {"deny": ["_INBOX.>"]}},
}


@pytest.mark.parametrize("taken", REFUSALS.values(), ids=REFUSALS)
async def test_a_permission_taken_away_is_named_and_its_return_heals(
    start_nats: Callable[..., PrivateServer], tmp_path: Path, taken: dict[str, dict[str, list[str]]]
) -> None:
    """The server reads its users again while the log is open; no connection is made anew."""
    configuration = tmp_path / "rights.conf"

    def grant(rights: object) -> None:
        user = f"{{ user: u, password: p, permissions: {json.dumps(rights)} }}"
        configuration.write_text(
            f"jetstream: enabled\nauthorization {{ users: [{user}] }}\nno_auth_user: u\n",
            encoding="utf-8",
        )

    grant({})
    server = start_nats(configuration)
    log = await connected(server.url, Names(), limits=AppenderLimits(budget_s=1.5, try_s=0.5))
    await write(log, "plan-0")
    written = 0

    async def refused() -> str:
        nonlocal written
        written += 1
        draft = Draft(plan_id=f"p{written}", task_id=None, expected=0, events=(Paused(),))
        try:
            await log.append(draft)
            await log.read("plan-0")
        except LogUnavailable as unavailable:
            return str(unavailable)
        return ""

    for rights, pattern in (
        (taken, "(?i)the server refuses it.*permissions violation"),
        ({}, "^$"),
    ):
        grant(rights)
        os.kill(server.pid, signal.SIGHUP)
        async with asyncio.timeout(30):
            while not re.search(pattern, await refused()):
                await asyncio.sleep(0.05)
    assert log.last_error is None
    assert log.reconnects == 0
    await log.close()


async def test_an_old_server_is_named_with_what_is_needed(private_nats: PrivateServer) -> None:
    """A relay puts an older release's number into what the server says of itself."""
    ended = asyncio.Event()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, questions = await asyncio.open_connection("127.0.0.1", private_nats.port)
        await asyncio.gather(pump(reader, questions), pump(answers, writer))
        await asyncio.gather(questions.wait_closed(), writer.wait_closed())
        ended.set()

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while line := await source.readline():
            target.write(re.sub(rb'"version":"[^"]*"', b'"version":"2.11.9"', line))
        target.close()

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(
            TopologyMismatch, match=r"2\.11\.9 is too old, 2\.12 or newer is needed"
        ):
            await connected(f"nats://127.0.0.1:{port}", Names())
        async with asyncio.timeout(10):
            await ended.wait()
