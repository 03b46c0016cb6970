"""The client: submits plans, reads and steers them, and follows their events."""

import asyncio
import builtins
import math
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from time import monotonic
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from holdfast_worker.limits import LIMITS, Limits
from holdfast_worker.sse import Message, async_messages
from holdfast_worker.views import Changes, Event, Gap, PlanView, Submission, TaskView, Why
from holdfast_worker.wire import REPEATED, Answer, HoldfastError, Trouble, Wire, query, task_path

T = TypeVar("T")

PATIENCE_S = 60.0
FIRST_SILENCE_S = 60.0
SHORTEST_SILENCE_S = 5.0
SILENT_PINGS = 3  # so many missing pings mean that the connection is dead
CONNECT_S = 5.0
NO_CONTENT = 204


class Client:
    """Speaks to one Holdfast server; use it on one event loop, as ``async with Client() as c:``.

    ``url`` and ``token`` default to HOLDFAST_URL and HOLDFAST_TOKEN. A request is repeated on
    transport errors, 429, 502 and 503 for ``patience_s`` seconds. Raises `Refused` for what the
    server refuses, and `Unreachable`.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        patience_s: float = PATIENCE_S,
        limits: Limits = LIMITS,
    ) -> None:
        self._wire = Wire(url, token, limits)
        self._patience_s = patience_s

    @property
    def url(self) -> str:
        """Where the server is."""
        return self._wire.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._wire.close()

    # -- plans ------------------------------------------------------------------------------

    async def submit(self, plan: Mapping[str, Any]) -> Submission:
        """Submit a plan; one without ``id`` gets one, so that repeating changes nothing."""
        body = {"id": _new_plan_id(), **plan}
        return await self._ask("POST", "/v1/plans", Submission, body)

    async def get(self, plan_id: str, *, min_sequence: int | None = None) -> PlanView:
        """The plan with its tasks, as it stands at ``min_sequence`` of the log or later."""
        return await self._ask(
            "GET", query(_plan(plan_id), {"min_sequence": min_sequence}), PlanView
        )

    async def task(
        self, plan_id: str, task_id: str, *, min_sequence: int | None = None
    ) -> TaskView:
        """One task with its input, output and last executions."""
        path = query(task_path(plan_id, task_id), {"min_sequence": min_sequence})
        return await self._ask("GET", path, TaskView)

    async def list(
        self, *, status: str | None = None, label: str | None = None
    ) -> AsyncIterator[PlanView]:
        """Every plan, page by page, without its tasks; ``label`` is ``name=value``."""
        after: str | None = None
        while True:
            wanted = {"status": status, "label": label, "after": after}
            page = await self._ask("GET", query("/v1/plans", wanted), _Page)
            for plan in page.items:
                yield plan
            if (after := page.next) is None:
                return

    async def pause(self, plan_id: str, reason: str = "") -> PlanView:
        """Stop claims of the plan; running tasks go on."""
        return await self._ask("POST", f"{_plan(plan_id)}/pause", PlanView, {"reason": reason})

    async def resume(self, plan_id: str, reason: str = "") -> PlanView:
        """Let claims of the plan go on."""
        return await self._ask("POST", f"{_plan(plan_id)}/resume", PlanView, {"reason": reason})

    async def cancel(self, plan_id: str, reason: str = "") -> PlanView:
        """End every unfinished task of the plan."""
        return await self._ask("POST", f"{_plan(plan_id)}/cancel", PlanView, {"reason": reason})

    async def retry(self, plan_id: str, task_id: str, *, fresh: bool = False) -> TaskView:
        """Give a FAILED task fresh budgets; ``fresh`` drops its checkpoints."""
        body = {"fresh": True} if fresh else {}
        return await self._ask("POST", task_path(plan_id, task_id, "retry"), TaskView, body)

    async def answer(
        self, plan_id: str, task_id: str, choice: str, comment: str = "", output: object = None
    ) -> dict[str, Any]:
        """Answer an approval. Raises `Refused` (404) on a server that has no approvals yet."""
        body = {"choice": choice, "comment": comment, "output": output}
        return await self._ask("POST", task_path(plan_id, task_id, "answer"), dict[str, Any], body)

    async def why(self, plan_id: str, task_id: str | None = None) -> Why:
        """Why the plan or the task does not run, or how it ended."""
        here = _plan(plan_id) if task_id is None else task_path(plan_id, task_id)
        return await self._ask("GET", f"{here}/why", Why)

    async def changes(
        self, plan_id: str, *, after: int = 0, min_sequence: int | None = None
    ) -> Changes:
        """The plan's tasks that changed after the sequence ``after``, as they are now.

        Statuses that follow from other facts (READY, SKIPPED, PENDING) are among them; no event
        has these. Pass the answer's ``sequence`` as ``after`` the next time, such as at each
        event: nothing is missed, and a task may come twice.
        """
        path = f"{_plan(plan_id)}/tasks"
        tasks: dict[str, TaskView] = {}
        cursor: str | None = None
        while True:
            wanted = {"changed_after": after, "after": cursor, "min_sequence": min_sequence}
            page = await self._ask("GET", query(path, wanted), _ChangesPage)
            tasks |= {task.task_id: task for task in page.items}
            if (cursor := page.next) is None:
                return Changes(builtins.list(tasks.values()), page.sequence)

    async def wait(self, plan_id: str) -> PlanView:
        """Wait until the plan has finished, through restarts of the server; the plan then."""
        last = 0
        async with aclosing(self.events(plan_id, after=0, types=["plan.finished"])) as events:
            async for event in events:
                last = event.sequence if isinstance(event, Event) else last
        return await self.get(plan_id, min_sequence=last or None)

    # -- events -----------------------------------------------------------------------------

    async def events(
        self,
        plan_id: str | None = None,
        *,
        after: int | None = None,
        types: Sequence[str] | None = None,
    ) -> AsyncGenerator[Event | Gap]:
        """Events after the sequence ``after``, each once and in order, through reconnections.

        With ``plan_id`` it begins at the plan's beginning and ends with the plan; without, it
        begins now unless ``after`` is given, and never ends. ``types`` such as
        ``["task.completed"]`` limits what comes. Raises `Refused`, such as for no such plan.
        """
        path = "/v1/events" if plan_id is None else f"{_plan(plan_id)}/events"
        follower = _Follower(after)
        wanted = query(path, {"types": ",".join(types) if types else None})
        while not follower.ended:
            trouble: Trouble | None = None
            try:
                async with aclosing(self._connection(wanted, follower)) as events:
                    async for event in events:
                        yield event
            except httpx.TransportError as error:
                trouble = Trouble(str(error) or type(error).__name__)
            except _Again as error:
                trouble = error.trouble
            if not follower.ended:
                pause_s = self._wire.pause_s(follower.tries, trouble or Trouble("the stream ended"))
                follower.tries += 1
                await asyncio.sleep(pause_s)

    async def _connection(self, path: str, follower: "_Follower") -> AsyncGenerator[Event | Gap]:
        timeout = httpx.Timeout(follower.silence_s, connect=CONNECT_S)
        headers = {} if follower.cursor is None else {"Last-Event-ID": str(follower.cursor)}
        async with self._wire.http.stream("GET", path, headers=headers, timeout=timeout) as got:
            if got.status_code == NO_CONTENT:
                follower.ended = True
                return
            if not got.is_success:
                answer = Answer(got.status_code, await got.aread())
                if got.status_code in REPEATED:
                    raise _Again(Trouble(str(answer.refusal)))
                raise answer.refusal
            async for message in async_messages(got):
                if (event := follower.take(message)) is not None:
                    yield event
                if follower.ended:
                    return

    async def _ask(self, method: str, path: str, kind: type[T], body: object = None) -> T:
        until = monotonic() + self._patience_s
        answer = await self._wire.ask(method, path, body, kind=kind, until=lambda: until)
        if not answer.ok:
            raise answer.refusal
        return answer.value


class _Again(HoldfastError):
    """A stream cannot be had for the moment."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.what)
        self.trouble = trouble


class _Follower:
    """What is remembered between the connections of one stream."""

    def __init__(self, cursor: int | None) -> None:
        self.cursor = cursor
        self.ended = False
        self.tries = 0
        self.silence_s = FIRST_SILENCE_S

    def take(self, message: Message) -> Event | Gap | None:
        """Move the cursor; the event, if ``message`` is one that a user is to see."""
        if message.id is not None:
            self.cursor = message.id
        match message.name:
            case "hello":
                self.tries = 0
                ping_s = msgspec.json.decode(message.data, type=_Hello).heartbeat_s
                self.silence_s = max(ping_s * SILENT_PINGS, SHORTEST_SILENCE_S)
            case "gap":
                return msgspec.json.decode(message.data, type=Gap)
            case "closed":
                reason = msgspec.json.decode(message.data, type=_Closed).reason
                self.ended = reason == "plan_finished"
            case name if "." in name:
                return msgspec.json.decode(message.data, type=Event)
            case _:
                pass
        return None


class _Hello(msgspec.Struct):
    heartbeat_s: float = FIRST_SILENCE_S / SILENT_PINGS


class _Closed(msgspec.Struct):
    reason: str = ""


class _Page(msgspec.Struct):
    items: list[PlanView]
    next: str | None = None


class _ChangesPage(msgspec.Struct):
    items: builtins.list[TaskView]
    sequence: int
    next: str | None = None


def _plan(plan_id: str) -> str:
    return f"/v1/plans/{quote(plan_id, safe='')}"


def _new_plan_id() -> str:
    return f"{math.floor(time.time() * 1000):012x}{secrets.token_hex(10)}"
