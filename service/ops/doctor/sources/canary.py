"""A canary for server-sent events: connects, breaks off, resumes, and compares with a witness.

It only reads, so an idle log is replayed: the newest events are read up to ``caught_up``, read
again after the id in their middle as a client would that lost its connection, and what both
connections brought together must be, event by event, what a second reading of the log has.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from typing import Any

import httpx
import msgspec

from holdfast_worker.sse import async_messages
from projections.feed.entry import UNASKED_TYPES
from service.ops.doctor.evidence import Canary
from streams.log import Fact, Log
from streams.plan.events import TYPE_NAMES

NEWEST = 200  # events looked at
MOST_BYTES = 4 * 1024 * 1024  # of one connection; then what came so far is compared
PAGE = 1_000

EventName = tuple[int, str]
WitnessEvents = Callable[[int, int], Awaitable[list[EventName]]]
"""Sequence and type of every event above the first and up to the second sequence, heartbeats not
among them, read independently of the stream under test."""


class StreamBroken(Exception):
    """The stream is not as it must be."""


class Heard(msgspec.Struct, frozen=True):
    """What one connection brought: events, and up to where they are complete."""

    events: list[EventName]
    up_to: int


async def prove_whole(
    client: httpx.AsyncClient, witness: WitnessEvents | None, called: str
) -> Canary:
    """Prove that the event stream is contiguous, or say where it is not.

    Without a ``witness`` a third connection is one. ``called`` names it. Raises httpx.HTTPError
    when the stream cannot be had; has no time limit of its own.
    """
    began = time.monotonic()
    start = await _start(client)
    resumed_after, seen, up_to = start, list[EventName](), start
    broken: str | None = None
    try:
        before = await _listen(client, start)
        _check_order(before.events, start)
        middle = len(before.events) // 2
        kept = before.events[:middle]
        resumed_after = kept[-1][0] if kept else start
        after = await _listen(client, resumed_after, resumes=True)
        _check_order(after.events, resumed_after)
        seen, up_to = kept + after.events, after.up_to
        _compare(before.events, [each for each in seen if each[0] <= before.up_to], "first")
        told = await (witness or _second_replay(client))(start, up_to)
        _compare(told, seen, called)
    except StreamBroken as found:
        broken = str(found)
    return Canary(
        events=len(seen),
        first=seen[0][0] if seen else start + 1,
        last=seen[-1][0] if seen else up_to,
        resumed_after=resumed_after,
        witness=called,
        took_s=round(time.monotonic() - began, 3),
        broken=broken,
    )


def log_witness(log: Log) -> WitnessEvents:
    """The log itself, read past the service."""

    async def read(after: int, up_to: int) -> list[EventName]:
        names: list[EventName] = []
        while after < up_to:
            facts = await log.scan(after, PAGE)
            if not facts:
                break
            after = facts[-1].sequence
            names += [
                (fact.sequence, TYPE_NAMES[type(fact.event)])
                for fact in facts
                if isinstance(fact, Fact) and fact.sequence <= up_to
            ]
        return [name for name in names if name[1] in UNASKED_TYPES]

    return read


def _second_replay(client: httpx.AsyncClient) -> WitnessEvents:
    async def read(after: int, up_to: int) -> list[EventName]:
        heard = await _listen(client, after)
        return [each for each in heard.events if each[0] <= up_to]

    return read


async def _start(client: httpx.AsyncClient) -> int:
    """The cursor before the newest events."""
    async with client.stream("GET", "/v1/events") as answer:
        async for name, _, data in _blocks(answer):
            if name == "hello":
                return max(int(data["head"]) - NEWEST, int(data["first"]) - 1, 0)
    raise httpx.RemoteProtocolError("the stream ended before its hello")


async def _listen(client: httpx.AsyncClient, cursor: int, *, resumes: bool = False) -> Heard:
    """Everything after ``cursor`` until the stream has caught up, or brought MOST_BYTES."""
    how: dict[str, Any] = (
        {"headers": {"Last-Event-ID": str(cursor)}} if resumes else {"params": {"after": cursor}}
    )
    events: list[EventName] = []
    size = 0
    async with client.stream("GET", "/v1/events", **how) as answer:
        async for name, sequence, data in _blocks(answer):
            match name:
                case "hello":
                    continue
                case "gap":
                    raise StreamBroken(f"a gap was sent for the cursor {cursor}, which the log has")
                case "closed":
                    raise httpx.RemoteProtocolError(f"the stream was closed: {data['reason']}")
                case "caught_up":
                    last = events[-1][0] if events else cursor
                    return Heard(events, max(int(data["sequence"]), last))
                case _:
                    events.append((sequence, name))
                    size += len(data["raw"])
                    if size > MOST_BYTES:
                        return Heard(events, sequence)
    raise httpx.RemoteProtocolError("the stream ended before it had caught up")


async def _blocks(answer: httpx.Response) -> AsyncIterator[tuple[str, int, dict[str, Any]]]:
    if not answer.is_success:
        raise httpx.HTTPStatusError(
            f"the answer was {answer.status_code}", request=answer.request, response=answer
        )
    async for each in async_messages(answer):
        # An event's own data can be large, and only its size is of interest.
        data = {"raw": each.data} if "." in each.name else msgspec.json.decode(each.data)
        yield each.name, each.id or 0, data


def _check_order(events: list[EventName], cursor: int) -> None:
    for (left, _), (right, _) in pairwise([(cursor, ""), *events]):
        if right <= left:
            raise StreamBroken(f"sequence {right} came after {left}")


def _compare(wanted: list[EventName], seen: list[EventName], witness: str) -> None:
    missing = sorted(set(wanted) - set(seen))
    added = sorted(set(seen) - set(wanted))
    if missing:
        raise StreamBroken(
            f"{len(missing)} events of {witness} never came; the first is {missing[0]}"
        )
    if added:
        raise StreamBroken(
            f"{len(added)} events came that {witness} has not; the first is {added[0]}"
        )
