"""What a handler is, what it is given, and what it may return: the part that users write against.

    from service.executor.handlers import TaskRun, handler

    @handler("summarise")
    def summarise(task: TaskRun) -> dict:
        return {"words": len(task.input["text"].split())}

A handler runs in a worker thread, an ``async def`` one on a private loop there, and with
``pool="process"`` in a process of its own that can be killed. What it returns is the output.
"""

import hashlib
import inspect
from collections.abc import Callable, Coroutine, Mapping
from contextvars import copy_context
from threading import Event, Lock, Thread, current_thread
from typing import Any, Literal, cast

import msgspec
import structlog
from msgspec import Raw

from service.executor.attempts.failures import TaskCancelled
from streams.json_values import encoded
from streams.plan.events import TaskType
from streams.plan.results import TokenUsage, Verdict

PoolKind = Literal["thread", "process"]
StopReason = Literal["timeout", "lease_lost", "fenced", "plan_failed", "draining"]
Channel = Literal["text", "reasoning", "refusal"]
PROGRESS_BYTES = 64 * 1024

log = structlog.get_logger("holdfast.executor")


class Cancellation:
    """Says, from any thread, that an attempt is to stop; the first reason holds.

    Its callbacks run on the thread that says so, be it the heartbeats': they are the executor's
    own and only pass the word on. A handler sees a `Stopping` instead.
    """

    def __init__(self) -> None:
        self._event = Event()
        self._lock = Lock()
        self._callbacks: list[Callable[[], None]] = []
        self.reason: StopReason | None = None

    def cancel(self, reason: StopReason) -> bool:
        """Ask to stop; False if it had been asked before."""
        with self._lock:
            if self._event.is_set():
                return False
            self.reason = reason
            self._event.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            _call(callback)
        return True

    def is_set(self) -> bool:
        """Whether the attempt is to stop."""
        return self._event.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until the attempt is to stop, or ``timeout_s`` seconds; says whether it is."""
        return self._event.wait(timeout_s)

    def raise_if_cancelled(self) -> None:
        """Raise `TaskCancelled` when the attempt is to stop."""
        if self._event.is_set():
            raise TaskCancelled(f"the attempt was stopped: {self.reason}")

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once when the attempt is to stop, on whatever thread says so."""
        with self._lock:
            if not self._event.is_set():
                self._callbacks.append(callback)
                return
        _call(callback)


class Stopping:
    """Whether and why an attempt is to stop, as its handler sees it."""

    def __init__(self, cancellation: Cancellation) -> None:
        self._cancellation = cancellation

    @property
    def reason(self) -> StopReason | None:
        """Why the attempt is to stop; None while it may go on."""
        return self._cancellation.reason

    def is_set(self) -> bool:
        """Whether the attempt is to stop."""
        return self._cancellation.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until the attempt is to stop, or ``timeout_s`` seconds; says whether it is."""
        return self._cancellation.wait(timeout_s)

    def raise_if_cancelled(self) -> None:
        """Raise `TaskCancelled` when the attempt is to stop."""
        self._cancellation.raise_if_cancelled()

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once when the attempt is to stop, on a thread of its own.

        It is user code, so it may block and raise without holding up whoever said stop; what it
        raises is logged. If the attempt is to stop already it is called at once, like the others.
        """
        thread = Thread(
            target=copy_context().run,  # so that its lines bear the attempt and its trace
            args=(_call, callback),
            name=f"{current_thread().name}-cancel",
            daemon=True,
        )
        self._cancellation.on_cancel(thread.start)


def _call(callback: Callable[[], None]) -> None:
    try:
        callback()
    except Exception:
        log.exception("on_cancel_raised")


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
    dependencies: dict[str, Raw]
    feedback: Raw
    traceparent: str = ""
    tracestate: str = ""


class Piece(msgspec.Struct, frozen=True):
    """Text that continues what was shown before on the same channel."""

    text: str
    channel: Channel = "text"


Shown = Piece | Raw
"""What a handler shows: a piece of a growing text, or any JSON."""


class TaskRun:
    """One attempt at a task, as its handler sees it.

    ``input``, ``context``, ``feedback`` and the values of ``dependencies`` are decoded JSON;
    ``fencing_token`` grows with every claim in the whole system, so that an outside system can
    refuse an older one; ``timeout_s`` is the time this attempt has in all.
    """

    def __init__(
        self,
        assignment: Assignment,
        cancellation: Cancellation,
        show: Callable[[Shown], None],
    ) -> None:
        self.plan_id = assignment.plan_id
        self.task_id = assignment.task_id
        self.kind = assignment.kind
        self.type = assignment.type
        self.attempt = assignment.attempt
        self.fencing_token = assignment.fencing_token
        self.retry = assignment.retry
        self.timeout_s = assignment.timeout_s
        self.traceparent = assignment.traceparent
        self.tracestate = assignment.tracestate
        self.input: Any = msgspec.json.decode(assignment.input)
        self.context: Any = msgspec.json.decode(assignment.context)
        self.dependencies: dict[str, Any] = {
            name: msgspec.json.decode(output) for name, output in assignment.dependencies.items()
        }
        self.feedback: Any = msgspec.json.decode(assignment.feedback)
        self.cancelled = Stopping(cancellation)
        self._show = show

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
    def trace_headers(self) -> dict[str, str]:
        """The headers by which a call to another system joins the attempt's trace (W3C)."""
        if not self.traceparent:
            return {}
        state = {"tracestate": self.tracestate} if self.tracestate else {}
        return {"traceparent": self.traceparent, **state}

    @property
    def attempt_key(self) -> str:
        """Different for every attempt."""
        return f"{self.plan_id}/{self.task_id}/{self.attempt}"

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
        before the result. Raises ValueError for data that is larger or no JSON
        (`streams.json_values.NotJson`) and for text that is not Unicode.
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


class Result(msgspec.Struct, frozen=True):
    """What a handler returns when it has more to say than its output.

    ``verdict`` is a critic's: ``{"pass": bool, "feedback": any JSON}``. Everything is checked like
    the body of a request; what does not fit fails the attempt as ``bad_output``.
    """

    output: Any = None
    verdict: Verdict | None = None
    model_name: str | None = None
    token_usage: TokenUsage | Mapping[str, int] | None = None


def verdict_of(said: object) -> Verdict | None:
    """The verdict in ``{"pass": bool, "feedback": any JSON}``; None when it is no such thing.

    Raises `streams.json_values.NotJson` when the feedback is none.
    """
    match said:
        case Verdict():
            passed, feedback = said.pass_, said.feedback
        case Mapping():
            words = cast("Mapping[str, object]", said)
            passed, feedback = words.get("pass"), words.get("feedback")
        case _:
            return None
    return Verdict(pass_=passed, feedback=encoded(feedback)) if isinstance(passed, bool) else None


Run = Callable[[TaskRun], Any]


class Handler:
    """A kind of task and the function that does it."""

    def __init__(
        self, kind: str, pool: PoolKind, run: Run, input_type: type[msgspec.Struct] | None = None
    ) -> None:
        self.kind = kind
        self.input_type = input_type
        self.pool: PoolKind = pool
        self.run = run
        self.is_async = inspect.iscoroutinefunction(run)
        self.module = run.__module__
        self.name = f"{run.__module__}.{run.__qualname__}"

    def __call__(self, task: TaskRun) -> Any | Coroutine[Any, Any, Any]:  # noqa: ANN401
        """What the function itself answers, for tests and for handlers that call others."""
        return self.run(task)


def handler(
    kind: str, *, pool: PoolKind = "thread", input: type[msgspec.Struct] | None = None
) -> Callable[[Run], Handler]:
    """Declare that the decorated function does tasks of ``kind``.

    With ``input``, plans whose tasks of this kind have another input are refused at submit.
    """
    if not kind:
        raise ValueError("a handler needs a kind")
    if pool not in ("thread", "process"):
        raise ValueError(f"pool={pool!r}: a handler runs in a 'thread' or a 'process'")
    return lambda run: Handler(kind, pool, run, input)
