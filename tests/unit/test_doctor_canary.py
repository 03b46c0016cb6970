"""The canary dies of every way in which a stream can fail to be whole, and of nothing else."""

import json
from collections.abc import Callable, Sequence

import httpx
import pytest

from service.ops.doctor.evidence import Canary
from service.ops.doctor.sources.canary import EventName, prove_whole

Told = Callable[[int], Sequence[int]]
LOG = [2, 3, 5, 6, 9, 10, 11]  # what stands between were heartbeats
TYPE = "task.progress"
HOSTILE = (
    "\u2028id: 1\u0085event: gap\u000bdata: {}\x1c"  # no line ends, but Python takes them for some
)


def block(name: str, data: object, sequence: int | None = None) -> str:
    identity = "" if sequence is None else f"id: {sequence}\n"
    return f"{identity}event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


def honest(cursor: int) -> list[int]:
    return [sequence for sequence in LOG if sequence > cursor]


class Stream:
    """An API whose event stream of ``log`` sends what a test says, at the start and resumed."""

    def __init__(
        self,
        begins: Told = honest,
        resumes: Told = honest,
        *,
        gap: bool = False,
        log: Sequence[int] = LOG,
    ) -> None:
        self.begins, self.resumes, self.gap, self.log = begins, resumes, gap, log

    def __call__(self, request: httpx.Request) -> httpx.Response:
        resumed = request.headers.get("last-event-id")
        after = request.url.params.get("after")
        said = block("hello", {"head": max(self.log, default=0), "first": 1})
        if resumed is not None or after is not None:
            cursor = int(resumed or after or 0)
            if self.gap and resumed is not None:
                said += block("gap", {"requested": cursor})
            told = (self.begins if resumed is None else self.resumes)(cursor)
            said += "".join(
                block(TYPE, {"sequence": each, "output": HOSTILE}, each) for each in told
            )
            said += block("caught_up", {"sequence": max(self.log, default=0)})
        return httpx.Response(
            200, headers={"content-type": "text/event-stream"}, text=f": ping\n{said}"
        )


async def sung(stream: Stream, witnessed: Sequence[int] | None = None) -> Canary:
    async def witness(after: int, up_to: int) -> list[EventName]:
        seen = LOG if witnessed is None else witnessed
        return [(each, TYPE) for each in seen if after < each <= up_to]

    transport = httpx.MockTransport(stream)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        return await prove_whole(client, witness, "the log")


async def test_a_whole_stream_is_proved_whole() -> None:
    canary = await sung(Stream())
    assert canary.broken is None
    assert (canary.events, canary.first, canary.last, canary.resumed_after) == (7, 2, 11, 5)


async def test_an_empty_log_proves_nothing_and_breaks_nothing() -> None:
    canary = await sung(Stream(lambda _: [], lambda _: [], log=[]), witnessed=[])
    assert (canary.broken, canary.events) == (None, 0)


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        (Stream(resumes=lambda cursor: honest(cursor)[1:]), "1 events of first never came"),
        (Stream(resumes=lambda cursor: [cursor, *honest(cursor)]), "5 came after 5"),
        (Stream(resumes=lambda cursor: [*honest(cursor)[:1], 6, 9, 10, 11]), "6 came after 6"),
        (Stream(resumes=lambda cursor: sorted({*honest(cursor), 8})), "1 events came that first"),
        (Stream(begins=lambda cursor: [3, 2, *honest(cursor)[2:]]), "2 came after 3"),
        (Stream(gap=True), "a gap was sent for the cursor 5"),
    ],
)
async def test_a_stream_that_is_not_whole_kills_the_canary(stream: Stream, says: str) -> None:
    canary = await sung(stream)
    assert canary.broken is not None
    assert says in canary.broken


async def test_what_both_connections_skip_is_seen_by_the_witness() -> None:
    def skip(cursor: int) -> list[int]:
        return [each for each in honest(cursor) if each != 9]

    canary = await sung(Stream(skip, skip))
    assert canary.broken == "1 events of the log never came; the first is (9, 'task.progress')"


async def test_a_refused_stream_is_no_verdict() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(503))
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        with pytest.raises(httpx.HTTPStatusError, match="503"):
            await prove_whole(client, None, "a second replay")
