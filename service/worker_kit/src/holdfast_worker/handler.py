"""A handler: one kind of task and the function that does it, inside Holdfast or outside."""

import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import Any, Generic, Literal, ParamSpec, TypeVar, get_type_hints

from msgspec import Raw

from holdfast_worker.failures import Fatal, text_of
from holdfast_worker.task import AsyncTask, Task, TaskRun
from holdfast_worker.values import decoded

P = ParamSpec("P")
R = TypeVar("R")

PoolKind = Literal["thread", "process"]


class Handler(Generic[P, R]):
    """A kind of task and its function, which takes the task, or the task and its typed input."""

    def __init__(
        self,
        kind: str,
        run: Callable[P, R],
        *,
        pool: PoolKind = "thread",
        lease_s: float | None = None,
        input_type: Any = None,  # noqa: ANN401 - a type
    ) -> None:
        self.kind = kind
        self.pool: PoolKind = pool
        self.run = run
        self.lease_s = lease_s
        self.is_async = inspect.iscoroutinefunction(run)
        self.module = run.__module__
        self.name = f"{run.__module__}.{run.__qualname__}"
        self._declared = input_type
        _check_parameters(run, self.name)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """What the function itself answers, for tests and for handlers that call others."""
        return self.run(*args, **kwargs)

    @property
    def task_class(self) -> type[TaskRun]:
        """What the function is given: in `AsyncTask` what waits for the server is awaited."""
        return AsyncTask if self.is_async else Task

    @cached_property
    def input_type(self) -> Any:  # noqa: ANN401 - a type
        """The declared type of the input; None where the function takes any."""
        if self._declared is not None or self._input_name is None:
            return self._declared
        return get_type_hints(self.run).get(self._input_name)

    @cached_property
    def _input_name(self) -> str | None:
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        parameters = inspect.signature(self.run).parameters.values()
        names = [each.name for each in parameters if each.kind in positional]
        return names[1] if len(names) > 1 else None

    def invoke(self, task: TaskRun, raw_input: Raw) -> Any:  # noqa: ANN401 - what it returns
        """Call the function for ``task``; a coroutine if it is async.

        Raises `Fatal` if the input does not fit its type.
        """
        function: Callable[..., Any] = self.run
        if self._input_name is None:
            return function(task)
        try:
            given = decoded(raw_input, self.input_type or Any)
        except Exception as error:
            kind = self.input_type
            wanted = kind.__name__ if isinstance(kind, type) else str(kind)
            said = f"the input is no {wanted}: {text_of(error)}"
            raise Fatal(said, error_type="bad_input") from error
        return function(task, given)


def _check_parameters(run: Callable[..., Any], name: str) -> None:
    """Raise TypeError now, and not for each task, if ``run`` cannot be called with a task."""
    try:
        signature = inspect.signature(run)
    except ValueError:  # of a builtin
        return
    for given in ((None,), (None, None)):
        with suppress(TypeError):
            signature.bind(*given)
            return
    raise TypeError(f"{name}{signature} must take the task, or the task and its input")


AnyHandler = Handler[..., Any]


def handler(
    kind: str,
    *,
    pool: PoolKind = "thread",
    lease_s: float | None = None,
    input: Any = None,  # noqa: ANN401 - a type
) -> Callable[[Callable[P, R]], Handler[P, R]]:
    """Declare that the decorated function does tasks of ``kind``.

    ``lease_s`` (seconds) is what a worker outside claims them for; without it each task's own.
    ``input`` names the input's type where the function takes the task alone; otherwise it is the
    type of the function's second parameter. The built-in executor refuses plans whose tasks of
    this kind have another input. ``pool="process"`` runs the function in a process of its own in
    the built-in executor, and in a thread in a worker outside.
    """
    if not isinstance(kind, str) or not kind:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f'a handler needs the name of its kind, as in ("search"), not {kind!r}')
    if pool not in ("thread", "process"):
        raise ValueError(f"pool={pool!r}: a handler runs in a 'thread' or a 'process'")

    def declare(run: Callable[P, R]) -> Handler[P, R]:
        return Handler(kind, run, pool=pool, lease_s=lease_s, input_type=input)

    return declare
