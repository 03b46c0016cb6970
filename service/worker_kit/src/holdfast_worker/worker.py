"""The worker: which kinds of tasks a program does, and the loop that does them."""

import os
import secrets
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any, ParamSpec, Self, TypeVar

import msgspec

from holdfast_worker import logs
from holdfast_worker.counters import Counters
from holdfast_worker.handler import Handler, PoolKind, handler
from holdfast_worker.limits import LIMITS, Limits
from holdfast_worker.service_loop import ServiceLoop
from holdfast_worker.session import Session
from holdfast_worker.wire import HoldfastError, Wire

P = ParamSpec("P")
R = TypeVar("R")

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
OWNER_CHARACTERS = 128


class Worker:
    """Claims tasks and runs their handlers, ``slots`` of them at a time.

    ``name`` begins the owner's name, which the log records with every attempt; "/", a host, a
    process id and random characters follow, so that no two processes share it. Where the server
    has tokens, ``name`` must be that of the worker's token, or begin with it and "/". ``url`` and
    ``token`` default to HOLDFAST_URL and HOLDFAST_TOKEN. `run` serves until SIGTERM; `start` and
    `stop`, or ``with worker:``, embed it in a program that has a life of its own.
    """

    def __init__(
        self,
        name: str,
        *,
        slots: int = 1,
        url: str | None = None,
        token: str | None = None,
        owner: str | None = None,
        limits: Limits = LIMITS,
    ) -> None:
        if slots < 1:
            raise ValueError(f"slots={slots}: a worker needs at least one")
        self.name = name
        self.slots = slots
        self.owner = owner or _owner(name)
        self._url = url
        self._token = token
        self._limits = limits
        self._handlers: dict[str, Handler[..., Any]] = {}
        self._counters = Counters()
        self._service: ServiceLoop | None = None

    # -- what it does -----------------------------------------------------------------------

    def task(
        self, kind: str, *, lease_s: float | None = None, pool: PoolKind = "thread"
    ) -> Callable[[Callable[P, R]], Handler[P, R]]:
        """Decorate the function that does tasks of ``kind``; see `handler`."""
        decorate = handler(kind, lease_s=lease_s, pool=pool)

        def declare(run: Callable[P, R]) -> Handler[P, R]:
            declared = decorate(run)
            self.include(declared)
            return declared

        return declare

    def include(self, *handlers: Handler[..., Any]) -> None:
        """Do tasks of these handlers, too. Raises ValueError for a kind that has one already."""
        for each in handlers:
            known = self._handlers.setdefault(each.kind, each)
            if known is not each:
                raise ValueError(
                    f"the kind {each.kind!r} has two handlers, {known.name} and {each.name}"
                )

    @property
    def counters(self) -> Counters:
        """What it has done since it was made: a copy, from any thread."""
        return msgspec.structs.replace(self._counters)

    # -- its life ---------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; call it on the main thread.

        It claims nothing more then, lets tasks end within ``limits.drain_s``, releases the rest
        and says goodbye. A second signal releases at once. Raises `Refused` when the server
        refuses the worker, such as for a bad token.
        """
        logs.configure_if_nothing_is()
        before = {number: signal.signal(number, self._on_signal) for number in STOP_SIGNALS}
        try:
            service = self.start()
            while not service.join(1.0):  # a bounded wait lets signal handlers run
                pass
            self._raise_if_died()
        finally:
            for number, handled in before.items():
                signal.signal(number, handled)

    def start(self) -> ServiceLoop:
        """Begin to claim, on a thread of its own. Raises ValueError without any handler."""
        if not self._handlers:
            raise ValueError(f"the worker {self.name!r} has no handler: decorate one with .task")
        if self._service is not None:
            raise RuntimeError("this worker was started already")
        notices = logs.Notices()
        session = Session(
            owner=self.owner,
            slots=self.slots,
            handlers=dict(self._handlers),
            wire=Wire(self._url, self._token, self._limits, self._counters),
            limits=self._limits,
            counters=self._counters,
            notices=notices,
        )
        self._service = service = ServiceLoop(session)
        service.start()
        kinds = ", ".join(sorted(self._handlers))
        notices.say(logs.INFO, "%s works at %s: %s", self.owner, session.wire.url, kinds)
        return service

    def stop(self, drain_s: float | None = None) -> None:
        """Claim nothing more, let tasks end within ``drain_s``, release the rest, and return then.

        Raises what ended the worker, if something did.
        """
        if self._service is None:
            return
        self._service.stop(self._limits.drain_s if drain_s is None else drain_s)
        self._service.join()
        self._raise_if_died()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._service is not None:
            self._service.stop(self._limits.drain_s)

    def _raise_if_died(self) -> None:
        died = self._service.died if self._service is not None else None
        if isinstance(died, HoldfastError):
            raise died.with_traceback(None)  # what the server said; not where it was read
        if died is not None:
            raise died


def _owner(name: str) -> str:
    """A name that no other process has, within the characters and the length of an owner."""
    host = socket.gethostname()
    whole = f"{name}/{host}"[: OWNER_CHARACTERS - 24]
    kept = "".join(
        each if each.isascii() and (each.isalnum() or each in "._:@/-") else "-" for each in whole
    )
    return f"{kept}:{os.getpid()}:{secrets.token_hex(3)}"
