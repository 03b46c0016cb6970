"""Follows an event stream in a terminal: after a lost connection it prints a note and resumes."""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import httpx
import msgspec

from holdfast_worker.sse import messages
from service.cli.client import (
    FAILED,
    OK,
    UNREACHABLE,
    USAGE,
    InstanceAddress,
    complain,
    complaint_of,
)
from service.runtime.pauses import pause_s
from service.runtime.terminal import on_one_line

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
SILENCE_PINGS = 3  # so many missing pings mean that the connection is dead
NO_CONTENT = 204
NOT_FOUND = 404
TOO_MANY = 429
EVENT_STREAM = "text/event-stream"

EventData = dict[str, Any]
"""The ``data`` of one event of the log."""


class Block(msgspec.Struct, frozen=True):
    """One server-sent event; ``id`` is None when it moves no cursor."""

    name: str
    id: int | None
    data: dict[str, Any]


class FollowRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be followed; ``plan_id`` alone means the plan's own stream, which has an end."""

    plan_id: str | None = None
    task_id: str | None = None
    types: str | None = None
    after: int | None = None

    @property
    def path(self) -> str:
        """The stream that has it."""
        return (
            "/v1/events"
            if self.plan_id is None
            else f"/v1/plans/{quote(self.plan_id, safe='')}/events"
        )

    @property
    def query(self) -> dict[str, str]:
        """The filters."""
        given = {"task_id": self.task_id, "types": self.types}
        return {name: value for name, value in given.items() if value is not None}


def follow(
    instance: InstanceAddress,
    asked: FollowRequest,
    show: Callable[[EventData], None],
    *,
    patience_s: float | None = None,
) -> int:
    """Show what is asked for until a plan's own stream ends; answers the exit code.

    A server that is down, restarts or refuses for the moment is tried again, for ever or until
    ``patience_s`` without a stream; what it refuses for good (no such plan, a bad token) ends it.
    """
    follower = PlanFollower(instance, asked, show)
    with instance.connect() as client:
        while True:
            code = follower.follow_once(client)
            if code is not None:
                return code
            if patience_s is not None and follower.alone_s() > patience_s:
                return complain(f"lost {instance.url}: {follower.trouble}", UNREACHABLE)
            time.sleep(follower.pause_s())


class PlanFollower:
    """Remembers the cursor between connections."""

    def __init__(
        self, instance: InstanceAddress, asked: FollowRequest, show: Callable[[EventData], None]
    ) -> None:
        self._instance = instance
        self._asked = asked
        self._show_event = show
        self.trouble = ""
        self._heard_at = time.monotonic()
        self._cursor = asked.after
        self._failures = 0
        self._silence_s = 60.0
        self._connected_before = False

    def alone_s(self) -> float:
        """For how long there has been no stream."""
        return time.monotonic() - self._heard_at

    def pause_s(self) -> float:
        """How long to wait before the next try: a moment at first, then longer, never in step."""
        self._failures = min(self._failures + 1, 10)
        return pause_s(self._failures, FIRST_PAUSE_S, LONGEST_PAUSE_S)

    def follow_once(self, client: httpx.Client) -> int | None:
        """One connection; the exit code if it was the last one."""
        headers = {} if self._cursor is None else {"Last-Event-ID": str(self._cursor)}
        timeout = httpx.Timeout(self._silence_s, connect=5.0)
        try:
            with client.stream(
                "GET", self._asked.path, params=self._asked.query, headers=headers, timeout=timeout
            ) as answer:
                return self._take(answer)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            return complain(f"{self._instance.url}: {error}", USAGE)
        except httpx.TransportError as error:
            self._lost(str(error) or type(error).__name__)
            return None

    def _take(self, answer: httpx.Response) -> int | None:
        if answer.status_code == NO_CONTENT:
            note("the plan has ended; there is nothing after the cursor")
            return OK
        if not answer.is_success:
            answer.read()
            complaint = complaint_of(answer)
            if answer.is_server_error or answer.status_code == TOO_MANY:
                self._lost(complaint)
                return None
            return complain(complaint, FAILED if answer.status_code == NOT_FOUND else USAGE)
        media_type = answer.headers.get("content-type", "no content type")
        if media_type.partition(";")[0] != EVENT_STREAM:
            return complain(f"{self._instance.url}: no Holdfast, it answers {media_type}", USAGE)
        for block in blocks(answer):
            self._heard_at = time.monotonic()
            if block.id is not None:
                self._cursor = block.id
            if self._show(block):
                return OK
        self._lost("the connection ended")
        return None

    def _show(self, block: Block) -> bool:
        """Print one block; True when nothing will follow it."""
        match block.name:
            case "hello":
                self._greeted(block.data)
            case "gap":
                note(_gap(block.data))
            case "closed":
                if block.data["reason"] == "plan_finished":
                    return True
                note(f"the server ended the stream: {block.data['reason']}")
            case "caught_up":
                pass
            case _:
                self._show_event(block.data)
        return False

    def _greeted(self, hello: dict[str, Any]) -> None:
        self._failures = 0
        self._silence_s = max(hello["heartbeat_s"] * SILENCE_PINGS, 5.0)
        if self._connected_before:
            note(f"connected again, resuming after sequence {self._cursor}")
        elif self._asked.after is not None:
            note(f"connected to {self._instance.url}, resuming after sequence {self._asked.after}")
        else:
            note(f"connected to {self._instance.url}; the log ends at {hello['head']}")
        self._connected_before = True

    def _lost(self, why: str) -> None:
        self.trouble = why
        if self._failures == 0:  # said once per break
            at = "" if self._cursor is None else f" at sequence {self._cursor}"
            note(f"not connected{at}: {why}; trying again")


def blocks(answer: httpx.Response) -> Iterator[Block]:
    """The events of a stream. U+2028 and bytes that are not UTF-8 may stand in their JSON."""
    for each in messages(answer):
        yield Block(each.name, each.id, msgspec.json.decode(each.data))


def _gap(gap: dict[str, Any]) -> str:
    if gap["reason"] == "expired":
        missing = f"{gap['requested'] + 1} to {gap['first'] - 1}"
        return f"gap: the log no longer has sequences {missing}; going on from {gap['first']}"
    if gap["reason"] == "forgotten":
        return f"gap: after sequence {gap['requested']} facts of forgotten plans are missing"
    return f"gap: the log ends at {gap['head']}, before {gap['requested']}: it is another log"


def note(text: str) -> None:
    """Something about the stream, where it does not mix with the events."""
    print(f"-- {on_one_line(text)}", file=sys.stderr, flush=True)
