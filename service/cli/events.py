"""`holdfast events`: prints events as they come, and after any break goes on where it stopped."""

import random
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import httpx
import msgspec

from service.cli.client import OK, USAGE, Instance, complain, complaint_of

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
SILENCE_PINGS = 3  # so many missing pings mean that the connection is dead
NO_CONTENT = 204
SHORTENED = 60

_encode = msgspec.json.Encoder().encode


class Block(msgspec.Struct, frozen=True):
    """One server-sent event; ``id`` is None when it moves no cursor."""

    name: str
    id: int | None
    data: dict[str, Any]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be followed; ``plan_id`` alone means the plan's own stream, which has an end."""

    plan_id: str | None = None
    task_id: str | None = None
    types: str | None = None
    after: int | None = None

    @property
    def path(self) -> str:
        """The stream that has it."""
        return "/v1/events" if self.plan_id is None else f"/v1/plans/{self.plan_id}/events"

    @property
    def query(self) -> dict[str, str]:
        """The filters."""
        given = {"task_id": self.task_id, "types": self.types}
        return {name: value for name, value in given.items() if value is not None}


def events(
    instance: Instance,
    *,
    plan_id: str | None = None,
    task_id: str | None = None,
    types: str | None = None,
    after: int | None = None,
    as_json: bool = False,
) -> int:
    """Print what is asked for until a plan's own stream ends; answers the exit code.

    A server that is down, restarts or refuses for the moment is tried again for ever; what it
    refuses for good (no such plan, a bad token) ends the command.
    """
    asked = Asked(plan_id=plan_id, task_id=task_id, types=types, after=after)
    follower = Follower(instance, asked, as_json=as_json)
    with instance.connect() as client:
        while True:
            code = follower.follow_once(client)
            if code is not None:
                return code
            time.sleep(follower.pause_s())


class Follower:
    """Remembers the cursor between connections."""

    def __init__(self, instance: Instance, asked: Asked, *, as_json: bool) -> None:
        self._instance = instance
        self._asked = asked
        self._as_json = as_json
        self._cursor = asked.after
        self._failures = 0
        self._silence_s = 60.0
        self._connected_before = False

    def pause_s(self) -> float:
        """How long to wait before the next try: a moment at first, then longer, never in step."""
        longest = min(FIRST_PAUSE_S * 2**self._failures, LONGEST_PAUSE_S)
        self._failures = min(self._failures + 1, 10)
        return random.uniform(longest / 2, longest)  # noqa: S311 - spreads load, hides nothing

    def follow_once(self, client: httpx.Client) -> int | None:
        """One connection; the exit code if it was the last one."""
        headers = {} if self._cursor is None else {"Last-Event-ID": str(self._cursor)}
        timeout = httpx.Timeout(self._silence_s, connect=5.0)
        try:
            with client.stream(
                "GET", self._asked.path, params=self._asked.query, headers=headers, timeout=timeout
            ) as answer:
                return self._take(answer)
        except httpx.InvalidURL as error:
            return complain(f"{self._instance.url}: {error}", USAGE)
        except httpx.UnsupportedProtocol as error:
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
            if answer.is_server_error:
                self._lost(complaint)
                return None
            return complain(complaint, USAGE)
        for block in blocks(answer.iter_lines()):
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
                shown = _encode(block.data).decode() if self._as_json else line(block.data)
                print(shown, flush=True)
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
        if self._failures == 0:  # said once per break
            at = "" if self._cursor is None else f" at sequence {self._cursor}"
            note(f"not connected{at}: {why}; trying again")


def blocks(lines: Iterable[str]) -> Iterator[Block]:
    """The events in the lines of a stream; comments and retry hints are left out."""
    fields: dict[str, str] = {}
    for text in lines:
        if text:
            name, _, value = text.partition(":")
            fields[name] = value.removeprefix(" ")
        elif "data" in fields:
            number = fields.get("id", "")
            data: Any = msgspec.json.decode(fields["data"])
            yield Block(fields.get("event", ""), int(number) if number else None, data)
            fields = {}


def line(event: dict[str, Any]) -> str:
    """One event for a person: time, sequence, type, place, and what matters most of the rest."""
    place = "/".join(part for part in (event["plan_id"], event["task_id"]) if part)
    said = ", ".join(_said(event["data"]))
    return f"{event['at'][:23]:<23}  {event['sequence']:>7}  {event['type']:<15}  {place}  {said}"


def _said(data: dict[str, Any]) -> Iterator[str]:
    if "tasks" in data:
        yield f"{len(data['tasks'])} tasks"
    for name in ("attempt", "owner", "status", "error_type", "error_message", "reason"):
        if data.get(name):
            yield f"{name} {_shortened(data[name])}"
    for name in ("output", "verdict", "data"):
        if data.get(name) is not None:
            yield f"{name} {_shortened(_encode(data[name]).decode())}"


def _shortened(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= SHORTENED else text[: SHORTENED - 3] + "..."


def _gap(gap: dict[str, Any]) -> str:
    if gap["reason"] == "expired":
        missing = f"{gap['requested'] + 1} to {gap['first'] - 1}"
        return f"gap: the log no longer has sequences {missing}; going on from {gap['first']}"
    return f"gap: the log ends at {gap['head']}, before {gap['requested']}: it is another log"


def note(text: str) -> None:
    """Something about the stream, where it does not mix with the events."""
    print(f"-- {text}", file=sys.stderr, flush=True)
