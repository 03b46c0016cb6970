"""Reads the whole log from the nodes themselves, with nats-py and nothing of Holdfast's."""

import asyncio
import json

import nats
from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

from tests.cluster.record import Fact

BATCH = 1_000
ANSWER_S = 10
TRIES, PAUSE_S = 4, 2.0
_FROM_THE_FIRST = api.ConsumerConfig(
    ack_policy=api.AckPolicy.NONE, deliver_policy=api.DeliverPolicy.ALL
)


async def read_log(urls: list[str]) -> list[Fact]:
    """Every fact in order; fails when the nodes send less than the stream says it holds.

    A node that has just come back may move the consumer or the lead: then it is read anew.
    """
    for again in reversed(range(TRIES)):
        try:
            return await _read_from(urls)
        except errors.Error:
            if not again:
                raise
            await asyncio.sleep(PAUSE_S)
    raise AssertionError("the last try answers or raises")


async def _read_from(urls: list[str]) -> list[Fact]:
    client = await nats.connect(urls, allow_reconnect=False)
    try:
        return await _read(client)
    finally:
        await client.close()


async def _read(client: Client) -> list[Fact]:
    stream = client.jetstream(timeout=ANSWER_S)
    state = (await stream.stream_info("PLANS")).state
    facts: list[Fact] = []
    if not state.messages:
        return facts
    puller = await _subscribed(stream)
    while not facts or facts[-1].sequence < state.last_seq:
        facts += [_fact(message) for message in await puller.fetch(BATCH, timeout=ANSWER_S)]
    assert len(facts) >= state.messages, f"{len(facts)} of {state.messages} messages were sent"
    return facts


async def _subscribed(stream: JetStreamContext) -> JetStreamContext.PullSubscription:
    return await stream.pull_subscribe("plans.>", stream="PLANS", config=_FROM_THE_FIRST)


def _fact(message: Msg) -> Fact:
    _, plan_id, *task = message.subject.split(".")
    return Fact(
        message.metadata.sequence.stream,
        message.metadata.timestamp.timestamp(),
        plan_id,
        task[0] if task else "",
        (message.headers or {})["Holdfast-Event"],
        json.loads(message.data),
    )
