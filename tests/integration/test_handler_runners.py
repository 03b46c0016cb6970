"""Handlers see the same world on threads of the serving process and in worker hosts."""

import asyncio

import msgspec
import pytest
from msgspec import Raw

from holdfast_worker.failures import TaskCancelled, TaskFailed
from holdfast_worker.progress import Piece
from service.executor.attempts.endings import Failure
from tests.integration.host_world import Design, calling_handlers
from tests.waiting import eventually

CALLS = (
    ("echo", {"a": [1, "é"]}, "worker"),
    ("echo", {"pass": False, "feedback": "no"}, "critic"),
    ("about", None, "worker"),
    ("result", None, "worker"),
    ("boom", None, "worker"),
    ("system_exit", None, "worker"),
    ("fails", {"error_type": "rate_limited", "message": "later", "retry_in_s": 3}, "worker"),
    ("no_json", None, "worker"),
    ("sleep", {"seconds": "no"}, "worker"),
    ("hoards", -1, "worker"),
    ("steps", "kept", "worker"),
    ("async_steps", "kept", "worker"),
    ("process_pid", None, "worker"),
)


async def test_both_designs_end_calls_alike() -> None:
    endings: dict[Design, list[bytes]] = {"threads": [], "hosts": []}
    for design, seen in endings.items():
        async with calling_handlers(design) as world:
            called = [world.call(kind, input, type) for kind, input, type in CALLS]
            for (kind, _, _), each in zip(CALLS, called, strict=True):
                ending = await each.ending()
                seen.append(b"" if kind == "process_pid" else msgspec.json.encode(ending))
                assert len(each.began) == 1, kind
    assert endings["threads"] == endings["hosts"]


@pytest.mark.parametrize("design", ["threads", "hosts"])
async def test_a_handler_shows_keeps_and_stops(design: Design) -> None:
    async with calling_handlers(design) as world:
        numbers, words = world.call("shows", {"seconds": 0.1}), world.call("speaks")
        kept = world.call("steps", {"k": 1})
        polite, hooked, waiting = (
            world.call(kind) for kind in ("polite", "hooked", "async_polite")
        )
        assert await numbers.output() == 500
        assert isinstance(numbers.shown[-1], Raw)
        assert msgspec.json.decode(numbers.shown[-1])["number"] == 499
        text = await words.output()
        pieces = [each.text for each in words.shown if isinstance(each, Piece)]
        assert "".join(pieces) == text
        assert await kept.output() == {"n": 1}
        assert kept.kept == {"step/first": {"n": 1}, "second": {"k": 1}}
        await asyncio.sleep(0)
        for each in (polite, hooked, waiting):
            each.cancelled.cancel("plan_failed")
            ending = await each.ending()
            assert isinstance(ending, Failure)
            assert ending.error_type == "cancelled"
            assert "plan_failed" in ending.error_message


@pytest.mark.parametrize("design", ["threads", "hosts"])
@pytest.mark.parametrize("kind", ["steps", "async_steps"])
@pytest.mark.parametrize(
    "error", [TaskFailed("too_large", "64 KiB", retryable=False), TaskCancelled("refused")]
)
async def test_a_refused_checkpoint_is_the_handlers_error(
    design: Design, kind: str, error: Exception
) -> None:
    async with calling_handlers(design) as world:
        world.keep_error = error
        ending = await world.call(kind).ending()
    assert isinstance(ending, Failure)
    assert ending.error_type == getattr(error, "error_type", "cancelled")
    assert str(error) in ending.error_message


@pytest.mark.parametrize("design", ["threads", "hosts"])
async def test_spans_of_handlers_reach_the_recorder(design: Design) -> None:
    async with calling_handlers(design) as world:
        assert await world.call("calls").output() == "called"
        await eventually(lambda: world.spans, "the span has come")
    (span,) = world.spans
    assert span.attributes["url.full"] == "https://example.org"
