"""Reads the log past the service, and says what must be true of plans, attempts and executions.

It knows nothing of the fold: it walks the facts one after the other, as an auditor would.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

import msgspec
import nats
import nats.js.api
from nats.aio.msg import Msg

from service.daemons.log_probe import PROBE_PLAN
from streams.jetstream.log import JetStreamLog
from streams.log import Fact
from streams.plan.events import (
    Cancelled,
    Claimed,
    Completed,
    Failed,
    Finished,
    Paused,
    Released,
    Resumed,
    Submitted,
    TaskEvent,
)
from tests.property.history import check_history

PAGE = 10_000

TaskName = tuple[str, str]
_ENDINGS = {Completed: "completed", Failed: "failed", Released: "released"}


class Attempt(msgspec.Struct):
    """One attempt as the log tells it."""

    attempt: int
    owner: str
    claimed: int
    status: str = "running"


def last_sequence(nats_url: str) -> int:
    """The stream's last sequence, asked of NATS directly."""

    async def ask() -> int:
        connection = await nats.connect(nats_url, allow_reconnect=False)
        try:
            return (await connection.jetstream().stream_info("PLANS")).state.last_seq
        finally:
            await connection.close()

    return asyncio.run(ask())


class Message(msgspec.Struct, frozen=True):
    """One message of the stream, named by its subject and its header alone."""

    sequence: int
    plan_id: str
    task_id: str | None
    type: str


async def read_messages(nats_url: str) -> list[Message]:
    """Every message of the log in order, by nats-py: none of Holdfast's own reading is trusted."""
    connection = await nats.connect(nats_url, allow_reconnect=False)
    try:
        stream = connection.jetstream()
        state = (await stream.stream_info("PLANS")).state
        messages: list[Message] = []
        if not state.messages:
            return messages
        puller = await stream.pull_subscribe("plans.>", stream="PLANS", config=_FROM_THE_FIRST)
        while not messages or messages[-1].sequence < state.last_seq:
            messages += [_message(each) for each in await puller.fetch(1_000, timeout=10)]
        assert len(messages) >= state.messages, "the witness itself has missed some"
        return messages
    finally:
        await connection.close()


_FROM_THE_FIRST = nats.js.api.ConsumerConfig(
    ack_policy=nats.js.api.AckPolicy.NONE,
    deliver_policy=nats.js.api.DeliverPolicy.ALL,
    inactive_threshold=300,  # seconds; a busy machine takes more than the default of 5 for a page
)


def _message(message: Msg) -> Message:
    _, plan_id, *task = message.subject.split(".")
    named = (message.headers or {})["Holdfast-Event"]
    return Message(message.metadata.sequence.stream, plan_id, task[0] if task else None, named)


def read_log(nats_url: str) -> list[Fact]:
    """Every fact of a plan, from the first; fails on one that cannot be read."""
    return asyncio.run(read_log_async(nats_url))


async def read_log_async(nats_url: str) -> list[Fact]:
    """See `read_log`."""
    log = await JetStreamLog.connect(nats_url)
    try:
        facts: list[Fact] = []
        while page := await log.scan(facts[-1].sequence if facts else 0, PAGE):
            for fact in page:
                assert isinstance(fact, Fact), fact
                facts.append(fact)
        # A probe of the log is a renewal of no task, and gone after a second.
        return [fact for fact in facts if fact.plan_id != PROBE_PLAN]
    finally:
        await log.close()


def without_late_claims(facts: Iterable[Fact]) -> Iterator[Fact]:
    """The facts but for claims behind a `paused` or `cancelled`: they stand there and do not count.

    Such a claim is on another subject than what it missed: both may be on their way to a log that
    has stopped, and then stand in the order in which it found them.
    """
    closed: set[str] = set()
    for fact in facts:
        if isinstance(fact.event, Paused | Cancelled):
            closed.add(fact.plan_id)
        elif isinstance(fact.event, Resumed):
            closed.discard(fact.plan_id)
        if not (isinstance(fact.event, Claimed) and fact.plan_id in closed):
            yield fact


def attempts_in(facts: list[Fact]) -> dict[TaskName, list[Attempt]]:
    """The attempts of every task. Fails if one is not its only owner's, or does not follow."""
    counting = list(without_late_claims(facts))
    check_history((fact, None) for fact in counting)
    tasks: dict[TaskName, list[Attempt]] = defaultdict(list)
    for fact in counting:
        if not isinstance(fact.event, TaskEvent) or fact.task_id is None:
            continue
        attempts = tasks[fact.plan_id, fact.task_id]
        if isinstance(fact.event, Claimed):
            if attempts and attempts[-1].status == "running":
                attempts[-1].status = "lost"
            attempts.append(Attempt(fact.event.attempt, fact.event.owner, fact.sequence))
        else:
            attempts[-1].status = _ENDINGS.get(type(fact.event), attempts[-1].status)
    return dict(tasks)


def assert_completed_once(facts: list[Fact]) -> None:
    """Every task of every plan has exactly one completion, and every plan exactly one end."""
    completions = Counter(
        (fact.plan_id, fact.task_id) for fact in facts if isinstance(fact.event, Completed)
    )
    wanted = {
        (fact.plan_id, task.id)
        for fact in facts
        if isinstance(fact.event, Submitted)
        for task in fact.event.tasks
    }
    assert set(completions) == wanted, "every task ends COMPLETED"
    twice = [name for name, count in completions.items() if count != 1]
    assert not twice, f"completed more than once: {twice}"
    ends = Counter(fact.plan_id for fact in facts if isinstance(fact.event, Finished))
    plans = {plan_id for plan_id, _ in wanted}
    assert ends == dict.fromkeys(plans, 1), "finished exactly once per plan"
