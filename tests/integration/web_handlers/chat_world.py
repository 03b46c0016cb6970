"""A model server on loopback that also misbehaves on purpose: its answers, and its ways to fail."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from holdfast_worker.handler import handler
from holdfast_worker.task import Result, TaskRun
from service.executor.handlers.chat import ChatInput, answered
from service.executor.handlers.chat.answer import TEXT_CHARACTERS
from service.executor.handlers.chat.limits import ChatLimits
from service.executor.handlers.chat.stream import EVENT_BYTES
from tests.integration.web_handlers.web_world import (
    DONE,
    ENDPOINTS,
    PATIENCE_S,
    Script,
    Server,
    Write,
    answer,
    chunk,
    event,
    stream,
)

JSON = {"Content-Type": "application/json"}
FULL_USAGE: dict[str, Any] = {
    "prompt_tokens": 11, "completion_tokens": 20, "total_tokens": 31,
    "prompt_tokens_details": {"cached_tokens": 8},
    "completion_tokens_details": {"reasoning_tokens": 5},
}  # fmt: skip

hold = threading.Event()


@contextmanager
def model_server() -> Iterator[Server]:
    """A server whose open connections end with it."""
    hold.clear()
    server = Server()
    yield server
    hold.set()
    server.close()


def part(**delta: object) -> bytes:
    """A chunk with any delta."""
    return event({"model": "model-7", "choices": [{"index": 0, "delta": delta}]})


def document(message: dict[str, object], finish: str | None = "stop", **fields: object) -> bytes:
    """An answer in one piece."""
    choice = {"index": 0, "message": {"role": "assistant"} | message, "finish_reason": finish}
    whole = {"model": "model-7", "choices": [choice], "usage": FULL_USAGE}
    return msgspec.json.encode(whole | fields)


def call(**fields: object) -> dict[str, object]:
    return {"index": 0, "type": "function"} | fields


def aborted(*events: bytes) -> Script:
    """A stream that ends in the middle of a chunk of the connection."""

    def script(write: Write) -> None:
        stream(*events, whole=False)(write)
        write(b"ff\r\ndata: ")

    return script


def open_ended(*events: bytes) -> Script:
    """A stream that is silent after its events and stays open."""

    def script(write: Write) -> None:
        stream(*events, whole=False)(write)
        hold.wait(PATIENCE_S)

    return script


WORDS = tuple(chunk(f"w{number} ") for number in range(20))
TEXT = "".join(f"w{number} " for number in range(20))
FINISH = chunk(finish="stop")
WHOLE_USAGE = event({"choices": [], "usage": FULL_USAGE})
QUOTA = b'{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}'
LIMIT = b'{"error":{"message":"Rate limit reached","code":"rate_limit_exceeded"}}'
TOOL_PARTS = (
    part(
        role="assistant", content=None,
        tool_calls=[call(id="call_1", function={"name": "search", "arguments": ""})],
    ),
    *(
        part(tool_calls=[{"index": 0, "function": {"arguments": piece}}])
        for piece in ('{"q":', ' "weather', ' in Bern"}')
    ),
)  # fmt: skip
TOOL_CALL = {"id": "call_1", "name": "search", "arguments": '{"q": "weather in Bern"}'}

ANSWERS: dict[str, tuple[Script, dict[str, object]]] = {
    "a stream": (stream(*WORDS, FINISH, WHOLE_USAGE, DONE), {"content": TEXT}),
    "without usage": (stream(*WORDS, FINISH, DONE), {"content": TEXT}),
    "without [DONE]": (stream(*WORDS, FINISH), {"content": TEXT}),
    "cut after the last word": (aborted(*WORDS, FINISH), {"content": TEXT}),
    "without the last blank line": (stream(*WORDS, FINISH.rstrip()), {"content": TEXT}),
    "one JSON document": (
        answer(body=document({"content": "hi"}), headers=JSON), {"content": "hi"},
    ),
    "a document without a name": (
        answer(body=b" \n" + document({"content": "hi"})), {"content": "hi"},
    ),
    "a document without an end": (
        answer(body=document({"content": "hi"}, None), headers=JSON), {"content": "hi"},
    ),
    "a document with tool calls": (
        answer(body=document({
            "content": None,
            "tool_calls": [call(id="call_1", function={"name": "search", "arguments": "{}"})],
        }, "tool_calls"), headers=JSON),
        {"content": "", "finish_reason": "tool_calls",
         "tool_calls": [TOOL_CALL | {"arguments": "{}"}]},
    ),
    "tool calls": (
        stream(*TOOL_PARTS, chunk(finish="tool_calls"), WHOLE_USAGE, DONE),
        {"content": "", "finish_reason": "tool_calls", "tool_calls": [TOOL_CALL]},
    ),
    "tool calls that end with stop": (
        stream(*TOOL_PARTS, FINISH, DONE), {"content": "", "tool_calls": [TOOL_CALL]},
    ),
    "several calls, mixed": (
        stream(
            part(tool_calls=[call(id="a", function={"name": "f", "arguments": "[1"})]),
            part(tool_calls=[call(index=1, id="b", function={"name": "g"})]),
            part(tool_calls=[
                call(function={"arguments": "]"}), call(index=1, function={"arguments": "{}"}),
            ]),
            chunk(finish="tool_calls"), DONE,
        ),
        {"content": "", "finish_reason": "tool_calls", "tool_calls": [
            {"id": "a", "name": "f", "arguments": "[1]"},
            {"id": "b", "name": "g", "arguments": "{}"},
        ]},
    ),
    "calls without an index, arguments as an object": (
        stream(
            part(tool_calls=[{"id": "a", "function": {"name": "f", "arguments": {"x": 1}}}]),
            part(tool_calls=[{"id": "b", "function": {"name": "g", "arguments": "{}"}}]),
            chunk(finish="tool_calls"), DONE,
        ),
        {"content": "", "finish_reason": "tool_calls", "tool_calls": [
            {"id": "a", "name": "f", "arguments": '{"x":1}'},
            {"id": "b", "name": "g", "arguments": "{}"},
        ]},
    ),
    "reasoning": (
        stream(part(reasoning_content="think "), part(reasoning="more"), *WORDS, FINISH, DONE),
        {"content": TEXT},
    ),
    "null everywhere": (
        stream(
            event({"id": None, "model": None, "choices": None, "usage": None, "error": None}),
            event({"choices": [{"delta": None, "finish_reason": None}]}),
            part(content=None, refusal=None, tool_calls=None, reasoning_content=None),
            *WORDS, FINISH, DONE,
        ),
        {"content": TEXT, "model": "model-7"},
    ),
    "names of odd shapes": (
        stream(event({"id": 7, "model": 7, "choices": [{"delta": {"content": "hi"}}]}),
               event({"model": ["m"] * 50, "choices": [{"finish_reason": "stop"}]}), DONE),
        {"content": "hi", "model": "m"},
    ),
    "line separators in the text": (
        stream(chunk("a\u2028data: b\u0085c\x0b"), FINISH, DONE),
        {"content": "a\u2028data: b\u0085c\x0b"},
    ),
    "comments, carriage returns and an event name": (
        stream(b": ping\r\n\r\n", b"event: chunk\r\n" + chunk("ü€𝄞").replace(b"\n", b"\r\n"),
               FINISH.replace(b"\n", b"\r"), b": ping\n\n", DONE),
        {"content": "ü€𝄞"},
    ),
    "a long burst": (
        stream(*(chunk("x" * 30_000) for _ in range(3)), FINISH, DONE), {"content": "x" * 90_000},
    ),
}  # fmt: skip

Fails = tuple[str, bool, float | None, str]
FAILURES: dict[str, tuple[Script, Fails]] = {
    "too quick": (
        answer("429 Slow", LIMIT, headers={"Retry-After": "2"}), ("rate_limited", True, 2, "limit"),
    ),
    "too quick by milliseconds": (
        answer("429 Slow", LIMIT, headers={"retry-after-ms": "900"}),
        ("rate_limited", True, 0.9, "limit"),
    ),
    "no quota": (
        answer("429 Slow", QUOTA, headers={"retry-after-ms": "900"}),
        ("rate_limited", False, None, "quota"),
    ),
    "no quota, in a stream": (
        stream(event(QUOTA.decode())), ("rate_limited", False, None, "quota"),
    ),
    "too quick, in a stream": (
        stream(event(LIMIT.decode())), ("rate_limited", True, None, "limit"),
    ),
    "an error as a document": (
        answer(body=b'{"error":{"message":"bad","code":503}}', headers=JSON),
        ("http_error", True, None, "bad"),
    ),
    "a wrong request as a document": (
        answer(body=b'{"error":{"message":"bad","type":"invalid_request_error"}}'),
        ("http_error", False, None, "bad"),
    ),
    "an error in the middle": (
        stream(*WORDS[:3], event({"error": {"message": "oops", "type": "server_error"}})),
        ("http_error", True, None, "oops"),
    ),
    "an error that is a text": (
        stream(event({"error": "overloaded"})), ("http_error", True, None, "overloaded"),
    ),
    "a redirect": (
        answer("307 Temporary Redirect", headers={"Location": "http://127.0.0.1:9/"}),
        ("http_error", False, None, "redirects are not followed"),
    ),
    "a broken server": (answer("500 Oops", b"{}"), ("http_error", True, None, "500")),
    "no such model": (answer("404 Not Found", b"{}"), ("http_error", False, None, "404")),
    "cut": (aborted(*WORDS[:5]), ("connection_error", True, None, "")),
    "ended before the last word": (
        stream(*WORDS[:5], DONE), ("connection_error", True, None, "ended before"),
    ),
    "malformed": (
        stream(*WORDS[:5], event('{"choices": [{"delta": {"conte'), *WORDS[:3], FINISH),
        ("bad_response", True, None, "malformed"),
    ),
    "another shape": (
        stream(event({"choices": "none"})), ("bad_response", True, None, "malformed"),
    ),
    "a number for the text": (stream(part(content=7)), ("bad_response", True, None, "malformed")),
    "nested deeply": (
        stream(event("[" * 5_000)), ("bad_response", True, None, "malformed"),
    ),
    "half a surrogate pair": (
        stream(event('{"choices":[{"delta":{"content":"\\ud800"}}]}')),
        ("bad_response", True, None, "malformed"),
    ),
    "a page of HTML": (
        answer(body=b"<html>sign in</html>"), ("bad_response", True, None, "sign in"),
    ),
    "nothing": (answer(), ("bad_response", True, None, "neither")),
    "length": (
        stream(*WORDS[:5], chunk(finish="length"), DONE), ("bad_response", False, None, "'length'"),
    ),
    "content filter": (
        stream(chunk(finish="content_filter")), ("bad_response", False, None, "'content_filter'"),
    ),
    "a finish of its own": (
        stream(*WORDS, chunk(finish="eos")), ("bad_response", False, None, "'eos'"),
    ),
    "refusal": (
        stream(part(refusal="I cannot "), part(refusal="help."), FINISH),
        ("bad_response", False, None, "I cannot help."),
    ),
    "tool calls that are not there": (
        stream(chunk("", "tool_calls")), ("bad_response", True, None, "has none"),
    ),
    "a call without a name": (
        stream(part(tool_calls=[call(id="a", function={"arguments": "{}"})]), FINISH),
        ("bad_response", True, None, "without a name"),
    ),
    "coded": (
        answer(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"}),
        ("bad_response", False, None, "'gzip'"),
    ),
    "a long line": (
        stream(*(b"x" * 65_536 for _ in range(EVENT_BYTES // 65_536 + 1))),
        ("bad_response", False, None, "larger than"),
    ),
    "an event of many lines": (
        stream(*(b"data: x\n" * 8192 for _ in range(EVENT_BYTES // 65_536 + 1))),
        ("bad_response", False, None, "larger than"),
    ),
    "a large document": (
        answer(body=b"{" + b" " * EVENT_BYTES, headers=JSON),
        ("bad_response", False, None, "larger than"),
    ),
    "too many words": (
        stream(*(chunk("x" * 65_536) for _ in range(TEXT_CHARACTERS // 65_536 + 1))),
        ("bad_response", False, None, "characters of text"),
    ),
    "too many calls": (
        stream(*(part(tool_calls=[call(index=n, id=f"c{n}")]) for n in range(200))),
        ("bad_response", False, None, "tool calls"),
    ),
}  # fmt: skip


@handler("chat", input=ChatInput)
async def quick_chat(task: TaskRun) -> Result:
    return await answered(task, ENDPOINTS, ChatLimits(after_finish_s=0.1, check_s=0.5))
