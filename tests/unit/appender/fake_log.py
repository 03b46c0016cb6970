"""A log whose answers the test chooses, and an observer that remembers."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from streams.codec import HEADER_LINE, MESSAGE_ID, split_headers
from streams.jetstream.refusals import WRONG_SEQUENCE
from streams.jetstream.transport import Found, Message, Stored, WriteAnswer, WriteRefused
from streams.plan.events import Started

STARTED = Started(owner="w1", attempt=1)

Fault = Callable[[Sequence[Message]], WriteAnswer | None]


class FakeLog:
    """Stores messages as the stream would; `faults` are asked first, each once, in order.

    Nothing is answered before `answer` is called, unless `prompt` is set.
    """

    def __init__(self) -> None:
        self.stored: list[tuple[str, str]] = []
        self.sent: list[Sequence[Message]] = []
        self.patience: list[float] = []
        self.faults: list[Fault] = []
        self.prompt = True
        self.is_up = True
        self.defects: list[Exception] = []
        self.lag: dict[str, int] = {}
        self.old_leader_answers = 0  # to how many questions for a message it shows none
        self._waiting: list[tuple[Sequence[Message], asyncio.Future[WriteAnswer]]] = []

    @property
    def connected(self) -> bool:
        return self.is_up

    @property
    def down_s(self) -> float:
        return 0.0 if self.is_up else 1.0

    @property
    def max_payload(self) -> int:
        return 1024 * 1024

    async def until_connected(self, timeout_s: float) -> bool:
        del timeout_s
        await asyncio.sleep(0)
        return self.is_up

    def publish(self, messages: Sequence[Message], timeout_s: float) -> asyncio.Future[WriteAnswer]:
        if self.defects:
            raise self.defects.pop()
        self.patience.append(timeout_s)
        self.sent.append(messages)
        answer: asyncio.Future[WriteAnswer] = asyncio.get_running_loop().create_future()
        self._waiting.append((messages, answer))
        if self.prompt:
            asyncio.get_running_loop().call_soon(self.answer)
        return answer

    def answer(self) -> None:
        """Answer what was sent first."""
        messages, answer = self._waiting.pop(0)
        fault = self.faults.pop(0)(messages) if self.faults else None
        answer.set_result(fault or self.store(messages))

    async def first_after(self, subject: str, sequence: int, timeout_s: float) -> Found | None:
        assert timeout_s > 0
        if self.old_leader_answers:
            self.old_leader_answers -= 1
            return None
        for place, (stands, event_id) in enumerate(self.stored, 1):
            if stands == subject and place > sequence:
                return Found(place, event_id)
        return None

    async def last_of(self, subjects: Sequence[str]) -> Mapping[str, int]:
        return {subject: self.lag.get(subject, self.last(subject)) for subject in subjects}

    def last(self, subject: str) -> int:
        return max(
            (n for n, (stands, _) in enumerate(self.stored, 1) if stands == subject), default=0
        )

    def store(self, messages: Sequence[Message]) -> WriteAnswer:
        for message in messages:
            actual = self.last(message.subject)
            if message.expected not in (None, actual):
                return WriteRefused(WRONG_SEQUENCE, f"wrong last sequence: {actual}")
        for message in messages:
            self.stored.append((message.subject, id_of(message)))
        return Stored(len(self.stored))


def id_of(message: Message) -> str:
    return split_headers(HEADER_LINE + message.lines)[MESSAGE_ID].decode()


def answered(answer: WriteAnswer) -> Fault:
    return lambda _: answer


def landed_but(log: FakeLog, answer: WriteAnswer) -> Fault:
    """It is stored, and the answer does not tell."""

    def fault(messages: Sequence[Message]) -> WriteAnswer:
        log.store(messages)
        return answer

    return fault


class Heard:
    """Counts what the appender says."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.facts = 0
        self.conflicts = 0
        self.failed: list[str] = []

    def appended(self, count: int, batch_size: int, duration_s: float) -> None:
        assert duration_s >= 0
        self.facts += count
        self.batches.append(batch_size)

    def append_failed(self, kind: str) -> None:
        self.failed.append(kind)

    def conflicted(self) -> None:
        self.conflicts += 1
