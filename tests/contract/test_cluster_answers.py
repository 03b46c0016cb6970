"""What a cluster may answer, scripted on one server: old leaders, lagging replicas, quiet tails."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streams.jetstream.connection import Connection
from streams.jetstream.consumer import Consumer
from streams.jetstream.drafts import AppenderLimits
from streams.jetstream.leadership import Patience
from streams.jetstream.log import JetStreamLog
from streams.jetstream.messages import Delivery, Reply
from streams.jetstream.reader import Reader
from streams.log import BadFact, Fact, LogUnavailable
from streams.plan.events import Heartbeat
from tests.conftest import PrivateServer
from tests.contract.drafts import all_of, on_plan, on_task, won
from tests.contract.wire import PassOn, Wire, Write
from tests.waiting import eventually

LONG_AGO, LATELY = 60_000_000_000, 100_000_000
PATIENCE = Patience(owed_s=0.3, lag_waits_s=(0, 0.01, 0.01))


class Cluster:
    """Answers for a cluster of three: a real server's, with what the test says of the group."""

    def __init__(self, log: JetStreamLog) -> None:
        self.log = log
        self.group: dict[str, Any] = {"leader": "n1", "replicas": [{"active": LATELY}] * 2}
        self.hidden = False  # whether the leader shows no message

    async def request(
        self, request: Callable[..., Awaitable[Reply]], subject: str, payload: bytes, **options: Any
    ) -> Reply:
        if self.hidden and "STREAM.MSG.GET" in subject:
            error = {"code": 404, "err_code": 10037, "description": "no message found"}
            return Reply(b"", msgspec.json.encode({"error": error}))
        reply = await request(subject, payload, **options)
        if "STREAM.INFO" not in subject:
            return reply
        answer = msgspec.json.decode(reply.payload)
        return Reply(b"", msgspec.json.encode({**answer, "cluster": self.group}))

    def cut_off(self) -> None:
        """The server has become a leader that hears no other."""
        self.group = {"leader": "n1", "replicas": [{"active": LONG_AGO}] * 2}
        self.hidden = True


@pytest.fixture
def patience() -> Patience:
    return PATIENCE


@pytest.fixture
async def log(
    private_nats: PrivateServer, wire: Wire, patience: Patience
) -> AsyncIterator[JetStreamLog]:
    del wire  # it sees all that the log sends
    log = await JetStreamLog.connect(private_nats.url, patience=patience)
    yield log
    await log.close()


@pytest.fixture
async def cluster(log: JetStreamLog, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster, request = Cluster(log), Connection.request

    async def scripted(
        self: Connection, subject: str, payload: bytes = b"", **options: Any
    ) -> Reply:
        return await cluster.request(partial(request, self), subject, payload, **options)

    monkeypatch.setattr(Connection, "request", scripted)
    await log.state()  # it learns that there are other replicas
    return cluster


async def test_what_a_leader_without_quorum_does_not_have_is_not_said_to_be_missing(
    cluster: Cluster,
) -> None:
    log = cluster.log
    assert await log.first_of("p") is None
    await won(log, on_plan("p"))
    cluster.cut_off()
    for question in (log.first_of("p"), log.last_of("p"), log.scan(1, 10), log.state()):
        with pytest.raises(LogUnavailable):
            await question
    assert log.uncertain is not None
    cluster.hidden = False
    cluster.group = {"leader": "n2", "replicas": [{"active": LATELY}, {"active": LONG_AGO}]}
    assert (await log.state()).head == 1
    assert await log.first_of("p") is not None
    assert log.uncertain is None


async def test_a_group_without_a_leader_names_no_head(cluster: Cluster) -> None:
    cluster.group = {"replicas": [{"active": LATELY}] * 2}
    with pytest.raises(LogUnavailable, match="no leader"):
        await cluster.log.state()
    with pytest.raises(LogUnavailable, match="no leader"):
        await cluster.log.trail.extent()


@pytest.mark.parametrize("lagging_answers", [4, 1_000])
async def test_a_plan_is_read_whole_or_not_at_all(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, lagging_answers: int
) -> None:
    log = cluster.log
    await won(log, on_plan("p"))
    await all_of(log, *(on_task(f"t{n}") for n in range(5)))
    facts_of, answers = Reader.facts, 0

    async def lagging(self: Reader, subject: str, start: int) -> list[Fact | BadFact]:
        nonlocal answers
        answers += 1
        facts = await facts_of(self, subject, start)
        return facts if answers > lagging_answers else facts[:-1]

    monkeypatch.setattr(Reader, "facts", lagging)
    if lagging_answers < 5:
        assert [fact.sequence for fact in await log.read("p")] == [1, 2, 3, 4, 5, 6]
    else:
        with pytest.raises(LogUnavailable, match="do not have all"):
            await log.read("p")


async def test_one_replica_that_lags_may_answer_half_of_all_reads_of_a_plan(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = cluster.log
    await won(log, on_plan("p"))
    await all_of(log, *(on_task(f"t{n}") for n in range(5)))
    facts_of, asked = Reader.facts, list[str]()

    async def every_second_lags(self: Reader, subject: str, start: int) -> list[Fact | BadFact]:
        asked.append(subject)
        facts = await facts_of(self, subject, start)
        # The plan's own facts are whole in the first round alone, those of its tasks in the second.
        return facts if len(asked) in (1, 3) else facts[:-1]

    monkeypatch.setattr(Reader, "facts", every_second_lags)
    assert [fact.sequence for fact in await log.read("p")] == [1, 2, 3, 4, 5, 6]
    assert asked[0] != asked[1] == asked[2]


async def test_a_plan_of_a_cluster_is_read_up_to_a_sequence(cluster: Cluster) -> None:
    await won(cluster.log, on_plan("p"))
    await all_of(cluster.log, *(on_task(f"t{n}") for n in range(5)))
    assert [fact.sequence for fact in await cluster.log.read("p", after=1, up_to=4)] == [2, 3, 4]
    assert [fact.sequence for fact in await cluster.log.read("p", "t2")] == [4]


# Tails.


async def collect(log: JetStreamLog, seen: list[int]) -> None:
    async with aclosing(log.follow(0)) as batches:  # type: ignore[type-var]
        async for batch in batches:
            seen += [fact.sequence for fact in batch]


async def test_what_a_silent_consumer_owes_is_read_and_the_consumer_replaced(
    log: JetStreamLog, wire: Wire
) -> None:
    """As on a server that has died, or whose replica lags: heartbeats at most, and no messages."""
    silent = False

    def when_not_silent(deliver: PassOn, message: Delivery) -> None:
        if not silent:
            deliver(*message)

    wire.consuming = when_not_silent
    seen: list[int] = []
    following = asyncio.create_task(collect(log, seen))
    await won(log, on_task("t0"))
    await eventually(lambda: seen == [1])
    silent = True
    await all_of(log, *(on_task(f"t{n}") for n in range(1, 10)))
    await eventually(lambda: log.tail_silent_s > 0)
    await eventually(lambda: seen == list(range(1, 11)))
    silent = False
    await won(log, on_task("late"))
    await eventually(lambda: seen == list(range(1, 12)))
    assert log.new_consumers >= 1
    assert log.tail_silent_s == 0
    following.cancel()
    await asyncio.wait([following])


async def test_a_tail_goes_on_while_no_consumer_can_be_made(
    log: JetStreamLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster may go on placing consumers on a server that has just died."""

    async def refused(_: Consumer) -> None:
        raise LogUnavailable("no consumer: it is placed on a server that is gone")

    monkeypatch.setattr(Consumer, "open", refused)
    seen: list[int] = []
    following = asyncio.create_task(collect(log, seen))
    await all_of(log, *(on_task(f"t{n}") for n in range(10)))
    await eventually(lambda: seen == list(range(1, 11)))
    following.cancel()
    await asyncio.wait([following])


async def test_expired_messages_at_the_end_of_the_log_are_not_owed_for_ever(
    private_nats: PrivateServer,
) -> None:
    limits = AppenderLimits(chatter_ttl_s=1)
    log = await JetStreamLog.connect(private_nats.url, patience=PATIENCE, limits=limits)
    await won(log, on_plan("p"))
    await won(log, on_task("t", 0, Heartbeat(owner="w", attempt=1, lease_s=5)))
    await eventually_async(lambda: log.read("p", "t"), lambda facts: facts == [])
    seen: list[int] = []
    following = asyncio.create_task(collect(log, seen))
    await eventually(lambda: seen == [1])
    loop = asyncio.get_running_loop()
    quiet_until = loop.time() + 6 * PATIENCE.owed_s
    await eventually(lambda: loop.time() > quiet_until)
    assert log.new_consumers <= 2
    assert log.tail_silent_s == 0
    following.cancel()
    await asyncio.wait([following])
    await log.close()


async def eventually_async(ask: Callable[[], Any], holds: Callable[[Any], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds(await ask()):
            await asyncio.sleep(0.05)


# Connections.


async def test_a_connection_leaves_a_server_for_another(
    start_nats: Callable[..., PrivateServer],
) -> None:
    servers = [start_nats(), start_nats()]
    url = ",".join(server.url for server in servers)
    connection = await Connection.open(url, name="test", timeout_s=5)
    for count in (1, 2, 3):
        before = connection.server
        connection.leave("it is cut off")
        await eventually(lambda count=count: connection.reconnects == count)
        assert connection.server != before
    await connection.close()


async def test_a_connection_with_one_server_stays(private_nats: PrivateServer) -> None:
    connection = await Connection.open(private_nats.url, name="test", timeout_s=5)
    connection.leave("it is cut off")
    await connection.request("$JS.API.INFO", timeout_s=5)
    assert connection.reconnects == 0
    await connection.close()


async def test_a_frozen_server_is_left_although_bytes_wait_to_be_sent(
    start_nats: Callable[..., PrivateServer],
) -> None:
    servers = [start_nats(), start_nats()]
    url = ",".join(server.url for server in servers)
    connection = await Connection.open(url, name="test", timeout_s=5)
    (frozen,) = [server for server in servers if connection.server in server.url]
    frozen.pause()
    connection.send(b"PUB x 1000000\r\n" + b"x" * 1_000_000 + b"\r\n")
    connection.leave("it does not answer")
    await eventually(lambda: connection.reconnects == 1)
    frozen.resume()
    await connection.close()


async def test_a_start_waits_for_a_cluster_that_is_just_forming(
    private_nats: PrivateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, refusals = Connection.request, 0

    async def forming(self: Connection, subject: str, *args: Any, **options: Any) -> Reply:
        nonlocal refusals
        if "STREAM.CREATE" in subject and refusals < 3:
            refusals += 1
            error = {"code": 400, "err_code": 10005, "description": "no suitable peers"}
            return Reply(b"", msgspec.json.encode({"error": error}))
        return await request(self, subject, *args, **options)

    monkeypatch.setattr(Connection, "request", forming)
    log = await JetStreamLog.connect(private_nats.url, connect_timeout_s=15)
    assert refusals == 3
    assert (await log.state()).head == 0
    await log.close()


@pytest.mark.parametrize("patience", [Patience(another_s=0.1, page_s=0.3)])
async def test_a_frozen_replica_that_is_asked_for_a_page_costs_a_moment(
    log: JetStreamLog, wire: Wire
) -> None:
    """Direct gets are spread over the replicas; the question to a frozen one is lost."""
    await won(log, on_plan("p"))
    lost = 0

    def lossy(write: Write, commands: bytes) -> None:
        nonlocal lost
        if b"DIRECT.GET" in commands and lost < 3:
            lost += 1
            return
        write(commands)

    wire.sending = lossy
    async with asyncio.timeout(20):
        assert len(await log.scan(0, 10)) == 1
    lost = -100
    with pytest.raises(LogUnavailable, match="nothing arrived"):
        await log.scan(0, 10)


RESTRICTED = """
host: 127.0.0.1
jetstream { sync_interval: 1s }
no_auth_user: a
authorization { users: [{ user: a, password: a, permissions: { publish: { deny: "info" } } }] }
"""


async def test_what_this_user_may_not_do_is_named(
    start_nats: Callable[[Path], PrivateServer], tmp_path: Path
) -> None:
    configuration = tmp_path / "restricted.conf"
    configuration.write_text(RESTRICTED)
    connection = await Connection.open(start_nats(configuration).url, name="test", timeout_s=5)
    with pytest.raises(LogUnavailable, match=r"(?i)no answer to info.*permissions violation"):
        await connection.request("info", timeout_s=0.5)
    await connection.close()


async def test_an_append_that_waits_shows(log: JetStreamLog, wire: Wire) -> None:
    await won(log, on_plan("p"))
    assert log.append_waiting_s == 0
    sending, wire.sending = wire.sending, lambda *_: None
    waiting = asyncio.ensure_future(log.append(on_task("t")))
    await eventually(lambda: log.append_waiting_s > 0.1)
    wire.sending = sending
    await waiting
    assert log.append_waiting_s == 0


def late(write: Write, commands: bytes) -> None:
    """A link that is slow."""
    asyncio.get_running_loop().call_later(0.2, write, commands)


@pytest.mark.parametrize("patience", [Patience(another_s=0.05)])
async def test_pages_come_over_a_link_that_is_slower_than_a_replica_may_be_silent(
    log: JetStreamLog, wire: Wire
) -> None:
    await won(log, on_plan("p"))
    wire.sending = late
    wire.pages_from.clear()
    assert len(await log.scan(0, 10)) == 1
    tries = len(wire.pages_from)
    wire.pages_from.clear()
    assert len(await log.scan(0, 10)) == 1
    assert tries > len(wire.pages_from) == 1, "how long an answer takes is learned"


@pytest.mark.parametrize("patience", [Patience(another_s=0.05, learned_s=0)])
async def test_how_long_a_page_took_is_forgotten(log: JetStreamLog, wire: Wire) -> None:
    """A page that took long while the machine was busy says nothing about a later fault."""
    await won(log, on_plan("p"))
    wire.sending = late
    for _ in range(2):
        wire.pages_from.clear()
        assert len(await log.scan(0, 10)) == 1
        assert len(wire.pages_from) > 1


@pytest.mark.parametrize("patience", [Patience(another_s=0.05)])
async def test_a_replica_that_was_slow_is_listened_to_after_another_was_asked(
    log: JetStreamLog, wire: Wire
) -> None:
    await won(log, on_plan("p"))

    def only_the_first(write: Write, commands: bytes) -> None:
        if b"DIRECT.GET" not in commands:
            write(commands)
        elif len(wire.pages_from) == 1:
            asyncio.get_running_loop().call_later(0.5, write, commands)

    wire.sending = only_the_first
    wire.pages_from.clear()
    assert len(await log.scan(0, 10)) == 1
    assert len(wire.pages_from) > 1
