"""One attempt at a task, as its handler sees it: what it is to do, what it keeps and shows."""

import asyncio
import hashlib
import inspect
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from functools import cached_property
from typing import Any, Literal, NoReturn, ParamSpec, TypeVar, get_type_hints, overload

import msgspec
from msgspec import Raw

from holdfast_worker.cancellation import Cancellation, Stopping
from holdfast_worker.failures import Unsupported
from holdfast_worker.logs import AttemptLog
from holdfast_worker.progress import Channel, Piece, Shown
from holdfast_worker.tokens import Spent, Usage
from holdfast_worker.values import decoded, encoded

P = ParamSpec("P")
T = TypeVar("T")

TaskType = Literal["worker", "critic"]
PROGRESS_BYTES = 64 * 1024
STEP = "step/"  # a step's value is the checkpoint of this key and its name

Show = Callable[[Shown], None]
Keep = Callable[[str, Raw, Usage | None], "Future[bool]"]
"""Stores a checkpoint with the tokens used since the last report; False: the server keeps none."""

log = logging.getLogger("holdfast_worker")

_json = msgspec.json.Decoder().decode  # each task has three values, most of them empty


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt's work as it can cross into another process; JSON values are still encoded."""

    plan_id: str
    task_id: str
    kind: str
    type: TaskType
    attempt: int
    fencing_token: int
    retry: int
    timeout_s: float
    input: Raw
    context: Raw
    dependencies: dict[str, Raw] = {}
    feedback: Raw
    traceparent: str = ""
    tracestate: str = ""
    checkpoints: dict[str, Raw] = {}


class Result(msgspec.Struct, frozen=True):
    """What a handler returns when it has more to report than its output.

    ``verdict`` is a critic's: ``{"pass": bool, "feedback": any JSON}``. ``token_usage`` has
    ``input_tokens``, ``output_tokens`` and so on. Everything is checked like the body of a
    request; what does not fit fails the attempt as ``bad_output``.
    """

    output: Any = None
    verdict: Any = None
    model_name: str | None = None
    token_usage: Any = None


class TaskRun:
    """One attempt at a task; a handler gets a `Task`, an ``async def`` one an `AsyncTask`.

    ``input``, ``context``, ``feedback`` and the values of ``dependencies`` are decoded JSON;
    ``fencing_token`` grows with every claim in the whole system, so that an outside system can
    refuse an older one; ``timeout_s`` is the time in seconds that this attempt has in all.
    """

    def __init__(
        self,
        assignment: Assignment,
        cancellation: Cancellation,
        show: Show,
        keep: Keep | None = None,
    ) -> None:
        self.plan_id = assignment.plan_id
        self.task_id = assignment.task_id
        self.kind = assignment.kind
        self.type: TaskType = assignment.type
        self.attempt = assignment.attempt
        self.fencing_token = assignment.fencing_token
        self.retry = assignment.retry
        self.timeout_s = assignment.timeout_s
        self.traceparent = assignment.traceparent
        self.tracestate = assignment.tracestate
        self.input: Any = _json(assignment.input)
        self.context: Any = _json(assignment.context)
        self.dependencies: dict[str, Any] = {
            name: _json(output) for name, output in assignment.dependencies.items()
        }
        self.feedback: Any = _json(assignment.feedback)
        self.cancelled = Stopping(cancellation)
        self.spent = Spent()
        self._show = show
        self._keep = keep
        self._kept = dict(assignment.checkpoints)
        self._steps: set[str] = set()

    @cached_property
    def log(self) -> AttemptLog:
        """A logger whose lines name plan, task and attempt."""
        return AttemptLog(self.plan_id, self.task_id, self.attempt)

    # -- keys for the outside world ---------------------------------------------------------

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt at the same work, so that a receiver does it once.

        It changes when a critic sent the task back: the next round is meant to differ.
        """
        key = f"{self.plan_id}/{self.task_id}"
        if self.feedback is None:
            return key
        said = msgspec.json.encode(self.feedback, order="deterministic")
        return f"{key}/{hashlib.sha256(said).hexdigest()[:12]}"

    @property
    def attempt_key(self) -> str:
        """Different for every attempt."""
        return f"{self.plan_id}/{self.task_id}/{self.attempt}"

    @property
    def trace_headers(self) -> dict[str, str]:
        """The headers by which a call to another system joins the attempt's trace (W3C)."""
        if not self.traceparent:
            return {}
        state = {"tracestate": self.tracestate} if self.tracestate else {}
        return {"traceparent": self.traceparent, **state}

    # -- what it shows ----------------------------------------------------------------------

    def raise_if_cancelled(self) -> None:
        """Raise `TaskCancelled` when the attempt is to stop."""
        self.cancelled.raise_if_cancelled()

    def progress(
        self, data: object = None, *, text: str | None = None, channel: Channel = "text"
    ) -> None:
        """Show partial work to watchers, without waiting.

        ``data`` is any JSON up to 64 KiB; only the newest is sent when several come faster than a
        few per second. ``text`` continues a growing text instead: its pieces are gathered and
        sent as ``{"offset": characters before it, "<channel>": "…"}``, in order, the last ones
        before the result. Raises ValueError for data that is larger or no JSON and for text that
        is not Unicode.
        """
        if text is not None:
            text.encode()  # a lone surrogate cannot be sent
            self._show(Piece(text, channel))
            return
        shown = encoded(data)
        if len(bytes(shown)) > PROGRESS_BYTES:
            raise ValueError(
                f"progress of {len(bytes(shown))} bytes; at most {PROGRESS_BYTES} are shown"
            )
        self._show(shown)

    def token_usage(
        self,
        model: str | None = None,
        *,
        input: int = 0,
        output: int = 0,
        cached: int = 0,
        reasoning: int = 0,
    ) -> None:
        """Add tokens that a call to ``model`` used; they go out with the next step or checkpoint.

        What is left goes out with the result, also when the handler fails. ``cached`` are part of
        ``input`` and ``reasoning`` part of ``output``. With several models the last one named is
        recorded.
        """
        self.spent.add(model, input, output, cached, reasoning)

    # -- what it keeps ----------------------------------------------------------------------

    @property
    def checkpoints(self) -> Mapping[str, Any]:
        """The newest value per key that this or an earlier attempt kept, steps left out."""
        return {
            key: decoded(value) for key, value in self._kept.items() if not key.startswith(STEP)
        }

    def _begin_step(self, name: str) -> str:
        if name in self._steps:
            raise ValueError(
                f"the step {name!r} has run in this attempt already; each step needs a name of "
                f'its own, such as f"{name}-{{number}}"'
            )
        self._steps.add(name)
        return STEP + name

    def _save(self, key: str, value: Raw) -> "Future[bool]":
        self.raise_if_cancelled()
        self._kept[key] = value
        if self._keep is None:
            nothing: Future[bool] = Future()
            nothing.set_result(False)
            return nothing
        used = self.spent.take()
        saved = self._keep(key, value, used)
        saved.add_done_callback(lambda done: self.spent.settle(used, reported=_is_kept(done)))
        return saved

    def _refuse_spawn(self, tasks: Sequence[Mapping[str, Any]]) -> NoReturn:
        what = f"a task cannot add tasks, here {len(tasks)}"
        raise Unsupported(f"this server has no growing plans yet: {what}")


class Task(TaskRun):
    """One attempt, for a plain ``def`` handler: what waits for the server blocks its thread."""

    def step(self, name: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What ``function(*args, **kwargs)`` returns, run once for all attempts at the task.

        Its value is kept as a checkpoint before this returns, and a later attempt gets it without
        running the function. The value goes through JSON in the first attempt too, and comes back
        as the function's declared return type. Give each step of a task a name of its own. Raises
        `TaskCancelled` when the lease is lost, `NotJson`, and `TaskFailed` (``too_large``) for a
        value beyond the server's bound of 64 KiB.
        """
        key = self._begin_step(name)
        if key not in self._kept:
            value = encoded(function(*args, **kwargs))
            _warn_unless_kept(self._save(key, value).result(), name)
        return decoded(self._kept[key], _returned_by(function))

    def checkpoint(self, key: str, value: object) -> None:
        """Keep any JSON under ``key`` for a later attempt's `checkpoints`; the newest one counts.

        At most 64 KiB. It renews the lease. Raises like `step`, and `Unsupported` when the server
        keeps no checkpoints.
        """
        _refuse_unless_kept(self._save(key, encoded(value)).result())

    def spawn(self, tasks: Sequence[Mapping[str, Any]]) -> None:
        """Add tasks to the plan. Raises `Unsupported`: no server has growing plans yet."""
        self._refuse_spawn(tasks)


class AsyncTask(TaskRun):
    """One attempt, for an ``async def`` handler: what waits for the server is awaited."""

    @overload
    async def step(
        self,
        name: str,
        function: Callable[P, Coroutine[Any, Any, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T: ...
    @overload
    async def step(
        self, name: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    async def step(
        self, name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        """What ``function(*args, **kwargs)`` returns, run once for all attempts; see `Task.step`.

        A plain function runs in a thread, so that it does not block other handlers.
        """
        key = self._begin_step(name)
        if key not in self._kept:
            if inspect.iscoroutinefunction(function):
                value = await function(*args, **kwargs)
            else:
                value = await asyncio.to_thread(function, *args, **kwargs)
                if inspect.isawaitable(value):
                    value = await value
            _warn_unless_kept(await asyncio.wrap_future(self._save(key, encoded(value))), name)
        return decoded(self._kept[key], _returned_by(function))

    async def checkpoint(self, key: str, value: object) -> None:
        """Keep any JSON under ``key`` for a later attempt; see `Task.checkpoint`."""
        _refuse_unless_kept(await asyncio.wrap_future(self._save(key, encoded(value))))

    async def spawn(self, tasks: Sequence[Mapping[str, Any]]) -> None:
        """Add tasks to the plan. Raises `Unsupported`: no server has growing plans yet."""
        self._refuse_spawn(tasks)


def _is_kept(saved: "Future[bool]") -> bool:
    return not saved.cancelled() and saved.exception() is None and saved.result()


def _returned_by(function: Callable[..., Any]) -> Any:  # noqa: ANN401 - a type
    """The declared return type; anything where none is declared or it cannot be resolved."""
    try:
        return get_type_hints(function).get("return", Any)
    except (TypeError, NameError, AttributeError):
        return Any


def _warn_unless_kept(kept: bool, name: str) -> None:  # noqa: FBT001 - the answer of `Keep`
    if not kept:
        log.warning("the server keeps no checkpoints: a later attempt runs the step %r again", name)


def _refuse_unless_kept(kept: bool) -> None:  # noqa: FBT001 - the answer of `Keep`
    if not kept:
        raise Unsupported("this server keeps no checkpoints; update it, or do without")
