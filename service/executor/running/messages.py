"""What the executor and the processes that run handlers send each other.

A worker host runs many calls at a time, the child of a `pool="process"` handler one.
"""

import msgspec
from msgspec import Raw

from holdfast_worker.cancellation import StopReason
from holdfast_worker.progress import Piece, Shown
from holdfast_worker.task import Assignment
from holdfast_worker.tokens import Usage
from service.executor.attempts.endings import Ending, Failure
from service.executor.running.frames import FrameTooLarge
from service.settings.config import ExecutorSettings, LogSettings, SecretSettings, Settings
from service.signals import logs
from service.signals.tracing.spans import Span
from streams.plan.events import NOTHING

STACK_BYTES = 8 * 1024 * 1024  # of a thread; the kernel counts them as data


class HostSetup(msgspec.Struct, frozen=True, tag=True):
    """To the host, first: how to log, which handlers to load, and how much memory it may have.

    ``secrets`` say where values come from; ``data_bytes`` 0 is no bound of memory.
    """

    instance_id: str
    log: LogSettings
    executor: ExecutorSettings
    secrets: dict[str, SecretSettings]
    data_bytes: int = 0
    spans: bool = False


class HostWork(msgspec.Struct, frozen=True, tag=True):
    """To the host: call the handler of the work's kind; ``run`` names the call from now on.

    A child has not loaded the handlers of the settings: it finds this one in ``module``.
    """

    run: int
    work: Assignment
    module: str = ""


class HostStop(msgspec.Struct, frozen=True, tag=True):
    """To the host: the attempt of a call is to stop."""

    run: int
    reason: StopReason


class KnownSecrets(msgspec.Struct, frozen=True, tag=True):
    """Either way: secrets that no line may hold."""

    values: tuple[str, ...]


class Kept(msgspec.Struct, frozen=True, tag=True):
    """To the handler's process: a checkpoint is in the log, unless there was a ``failure``."""

    number: int
    failure: Failure | None = None


class HostPing(msgspec.Struct, frozen=True, tag=True):
    """Either way: a question whether the host still reads, and its answer."""


class HostReady(msgspec.Struct, frozen=True, tag=True):
    """From the host: it takes tasks of ``kinds``; ``unusable`` says why it has no other kinds."""

    kinds: tuple[str, ...]
    unusable: str = ""


class HostProgress(msgspec.Struct, frozen=True, tag=True):
    """From the host: progress of a call, either a ``piece`` of a text or other ``data``."""

    run: int
    data: Raw = NOTHING
    piece: Piece | None = None

    @classmethod
    def of(cls, run: int, shown: Shown) -> "HostProgress":
        """The message that carries ``shown``."""
        return cls(run, piece=shown) if isinstance(shown, Piece) else cls(run, shown)

    @property
    def shown(self) -> Shown:
        """What the handler showed."""
        return self.data if self.piece is None else self.piece


class HostCheckpoint(msgspec.Struct, frozen=True, tag=True):
    """From the host: keep ``value`` under ``key``, and answer `Kept` with the same number."""

    run: int
    number: int
    key: str
    value: Raw
    usage: Usage | None


class HostEnded(msgspec.Struct, frozen=True, tag=True):
    """From the host: how a call ended, and when its first instruction was (monotonic)."""

    run: int
    began_at: float
    ending: Ending


class HostSpan(msgspec.Struct, frozen=True, tag=True):
    """From the host: a span of a handler's call to the outside has ended."""

    span: Span


class HostLeaving(msgspec.Struct, frozen=True, tag=True):
    """From the host: it was asked to end, and takes no more work."""


ToChild = HostWork | HostStop | Kept | KnownSecrets
FromChild = HostProgress | HostCheckpoint | HostEnded
ToHost = ToChild | HostSetup | HostPing
FromHost = FromChild | HostReady | HostSpan | HostLeaving | HostPing | KnownSecrets


def too_large(error: FrameTooLarge) -> Failure:
    """How an attempt ends whose result cannot be sent to the executor."""
    message = f"what the handler returned comes to {error}"
    return Failure(error_type="too_large", error_message=message, retryable=False)


def not_sent(error: FrameTooLarge) -> Failure:
    """How an attempt ends whose work no process takes."""
    message = f"the task's input, context and dependencies come to {error}"
    return Failure(error_type="too_large", error_message=message, retryable=False)


def setup_of(settings: Settings, instance_id: str, *, spans: bool) -> HostSetup:
    """What a host of this process is to know; its log is set up as this one's is now."""
    worker = settings.executor.worker
    stacks = worker.core_size * STACK_BYTES
    return HostSetup(
        instance_id=instance_id,
        log=logs.in_force(),
        executor=settings.executor,
        secrets=settings.secrets,
        data_bytes=worker.memory_mb * 1024 * 1024 + stacks if worker.memory_mb else 0,
        spans=spans,
    )
