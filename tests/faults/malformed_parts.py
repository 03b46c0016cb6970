"""The words of malformed HTTP: what a request may hold that is wrong, place by place."""

from typing import Any

_HELD = {"owner": "w", "attempt": 1}
_ITEM = {"plan_id": "p", "task_id": "t", "attempt": 1}
_TASK = "/v1/plans/p/tasks/t"
BODIES: dict[str, Any] = {
    "/v1/plans": {"id": "p", "name": "n", "labels": {"a": "b"}, "context": {"k": [1]},
                  "tasks": [{"id": "t", "kind": "outside", "input": {"x": 1}, "priority": 1},
                            {"id": "u", "kind": "outside", "depends_on": ["t"]}]},
    "/v1/plans/p/cancel": {"reason": "r"},
    "/v1/plans/p/retry": {"reason": "r", "fresh": False},
    f"{_TASK}/retry": {"reason": "r"},
    f"{_TASK}/take-back": {"attempt": 1, "reason": "r"},
    f"{_TASK}/start": _HELD,
    f"{_TASK}/heartbeat": _HELD | {"progress": {"n": 1}},
    f"{_TASK}/progress": _HELD | {"data": [1]},
    f"{_TASK}/checkpoint": _HELD | {"key": "k", "value": {"a": 1}},
    f"{_TASK}/complete": _HELD | {"output": {"a": 1}, "token_usage": {"input_tokens": 1}},
    f"{_TASK}/fail": _HELD | {"error_type": "e", "error_message": "m", "retry_in_s": 1},
    f"{_TASK}/release": _HELD | {"reason": "r"},
    f"{_TASK}/claim": {"owner": "w", "lease_s": 5},
    "/v1/claims": {"owner": "w", "limit": 1, "kinds": ["none"], "wait_s": 0},
    "/v1/heartbeats": {"owner": "w", "leases": [_ITEM]},
    "/v1/results": {"owner": "w", "results": [_ITEM | {"outcome": "completed", "output": 1}]},
    "/v1/owners/w%2F1/goodbye": {},
    "/v1/session": {"token": "hf_00000000_x"},
}  # fmt: skip
READS = (
    "/v1/plans", "/v1/plans/p", "/v1/plans/p/tasks", _TASK, "/v1/tasks", "/v1/executions",
    "/v1/audit", "/v1/events", "/v1/plans/p/events", "/v1/plans/p/why", f"{_TASK}/why",
    "/v1/workers", "/v1/session", "/v1/ops/status", "/v1/ops/doctor", "/v1/ops/history",
    "/v1/ops/plans", "/healthz", "/metrics", "/actuator/metrics",
    "/actuator/metrics/agent.tasks.queued", "/schema/openapi.json", "/", "/page/app.js", "/nothing",
)  # fmt: skip
PARAMETERS = (
    "after", "limit", "status", "label", "kind", "owner", "min_sequence", "at_sequence", "event",
    "plan_id", "since", "until", "types", "_",
)  # fmt: skip

BYTES = (
    b"\0", b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x7f", b"\x1b[2J", b"\r",
    b"\n", b"\x0b", b"\t", b"\xe2\x80\xa8", b"%", b"%zz", b"%00", b"%c0%af", b"%ff", b"%u0041",
    b"'", b'"', b"\\", b"<", b"{}", b"${jndi:x}", b"../../etc/passwd", b"%2e%2e%2f", b"//", b";",
)  # fmt: skip
METHODS = (
    b"", b"get", b"GETT", b"G ET", b"PRI", b"TRACE", b"CONNECT", b"PUT", b"PATCH", b"HEAD",
    b"OPTIONS", b"DELETE", b"PROPFIND", b"M-SEARCH", b"SOURCE", b"\x16\x03\x01", b"\0", b"A" * 300,
)  # fmt: skip
VERSIONS = (
    b"", b"HTTP/0.9", b"HTTP/1.0", b"HTTP/1.", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/9.9", b"http/1.1",
    b"HTTP/1.1 ", b"HTTP/1.1 x", b"ICE/1.0", b"RTSP/1.0", b"HTTP/11", b"HTTP/-1.1", b"\xff",
)  # fmt: skip
HOSTS: tuple[tuple[bytes, ...], ...] = (
    (), (b"",), (b"localhost", b"localhost"), (b"evil.test",), (b"localhost:99999",),
    (b"localhost:-1",), (b"localhost:8000:8000",), (b"user@localhost",), (b"[::1",), (b"[]",),
    (b"\xff",), (b"local host",), (b"localhost, evil.test",), (b"a" * 300,), (b"0x7f000001",),
    (b"127.1",), (b"localhost.",), (b"localhost:0", b"evil.test"), (b"localhost\0",), (b":",),
)  # fmt: skip
FRAMINGS: tuple[tuple[bytes, bytes], ...] = (
    (b"Content-Length: 2\r\nTransfer-Encoding: chunked", b"2\r\n{}\r\n0\r\n\r\n"),
    (b"Transfer-Encoding: chunked\r\nContent-Length: 2", b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n"),
    (b"Content-Length: 2\r\nContent-Length: 3", b"{}x"),
    (b"Content-Length: 2, 2", b"{}"), (b"Content-Length: -1", b"{}"),
    (b"Content-Length: +2", b"{}"),
    (b"Content-Length: 0x2", b"{}"), (b"Content-Length: 2 2", b"{}"), (b"Content-Length:", b"{}"),
    (b"Content-Length: " + b"9" * 400, b"{}"), (b"Content-Length: 18446744073709551616", b"{}"),
    (b"Content-Length: 2\0", b"{}"), (b"Content-Length: \xb2", b"{}"),
    (b"Content-Length: 1e0", b"{}"),
    (b"Content-Length: 1048577", b"{}"), (b"Content_Length: 2", b"{}"),
    (b"Content-Length : 2", b"{}"),
    (b"Transfer-Encoding: xchunked", b"2\r\n{}\r\n0\r\n\r\n"),
    (b"Transfer-Encoding: chunked, identity", b"2\r\n{}\r\n0\r\n\r\n"),
    (b"Transfer-Encoding: chunked, chunked", b"2\r\n{}\r\n0\r\n\r\n"),
    (b"Transfer-Encoding: gzip, chunked", b"2\r\n{}\r\n0\r\n\r\n"),
    (b"Transfer-Encoding: identity", b"{}"), (b"Transfer-Encoding:\x0bchunked", b"0\r\n\r\n"),
    (b"Transfer-Encoding\t: chunked", b"0\r\n\r\n"), (b"Content-Encoding: gzip", b"\x1f\x8b\x08\0"),
)  # fmt: skip
CHUNKS = (
    b"zz\r\n{}\r\n", b"-1\r\n{}\r\n", b"ffffffffffffffff\r\n{}", b"fffffffffffffffffff\r\n{}",
    b"2\r\n{}0\r\n\r\n", b"2\r\n{}\r\r\n0\r\n\r\n", b"\r\n{}\r\n", b"2;\0=\xff\r\n{}\r\n0\r\n\r\n",
    b"2;" + b"e" * 40_000 + b"\r\n{}\r\n0\r\n\r\n", b"0x2\r\n{}\r\n0\r\n\r\n",
    b"2 \r\n{}\r\n0\r\n\r\n",
    b"1\r\n{\r\n" * 300 + b"0\r\n\r\n", b"2\n{}\n0\n\n", b"0\r\nA: b\r\n" * 3,
    b"0\r\n" + b"T: t\r\n" * 200,
    b"100000000\r\n" + b"{" * 2_000, b"2\r\n{}\r\n0\r\nContent-Length: 9\r\n\r\n",
)  # fmt: skip
WEBSOCKET = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
)
HEADERS = (
    b"Folded: a\r\n b", b"Folded: a\r\n\tb\r\n c", b"no colon", b": no name", b"A : b", b" A: b",
    b"A\0B: c", b"A: b\0c", b"A: \xff\xfe", b"A\xff: b", b"A: b\rc", b"A: b\nB: c", b"(A): b",
    b"A: " + b"a" * 40_000, b"A" * 40_000 + b": a", b"\r\nA: b", b"A:", b"A: \x1b]0;x\x07",
    b"Expect: 100-continue", b"Expect: 200-ok", b"Connection: close, keep-alive, upgrade, \xff",
    b"Connection: content-length, host", b"Keep-Alive: timeout=-1", b"TE: trailers, \xff;q=9",
    b"Range: bytes=0-,9-1,-5", b'If-None-Match: "' + b"x" * 3_000, b"If-Modified-Since: never",
    b"Accept: */*;q=nan, ;q=, text/\xff", b"Accept: " + b"a/b," * 2_000, b"Accept-Encoding: \0",
    b"Accept: text/plain;version=" + b"9" * 400, b"Accept-Language: *;q=1e999",
    b"Traceparent: 00-" + b"f" * 32 + b"-" + b"f" * 16 + b"-ff", b"Traceparent: ff-\xff",
    b"Tracestate: " + b"a=b," * 900, b"X-Request-Id: \x7f" + b"i" * 300, b"Baggage: %ff=%00;;,",
    b"Last-Event-ID: " + b"9" * 5_000, b"Last-Event-ID: -1", b"Last-Event-ID: 1.5",
    b"Last-Event-ID: \xd9\xa1", b"Last-Event-ID: 1\r\nLast-Event-ID: 2", b"Origin: null",
    b"Origin: http://", b"Origin: \xff://\xff", b"Sec-Fetch-Site: cross-site",
    b"Sec-Fetch-Site: \xff", b"X-Forwarded-For: 1.2.3.4", b'Forwarded: for="_x"',
    b"Content-Type: application/json; charset=utf-16", b"Content-Type: \xff/\xff",
    b"Content-Type: multipart/form-data; boundary=" + b"b" * 4_000, b"Content-Type: text/plain",
    b"Content-Type: application/x-www-form-urlencoded", b"Cookie: " + b"a=b; " * 2_000,
    b"Cookie: holdfast_session=\xff", b"Cookie: holdfast_session=00000000.99999999999999.x",
    b"Cookie: holdfast_session=;;;=;holdfast_session", b"Upgrade: websocket\r\nConnection: upgrade",
    WEBSOCKET, b"Upgrade: h2c\r\nHTTP2-Settings: \xff", b"Upgrade: TLS/1.0\r\nConnection: upgrade",
)  # fmt: skip
CREDENTIALS = (
    b"Authorization:", b"Authorization: Bearer", b"Authorization: Bearer \xff",
    b"Authorization: Bearer hf_00000000_" + b"A" * 43, b"Authorization: Basic \xff",
    b"Authorization: bearer " + b"x" * 20_000, b"Cookie: holdfast_session=00000000.1." + b"A" * 43,
    b"Cookie: holdfast_session=abcdefgh.999999999999." + b"_" * 43, b"Cookie: \0",
)  # fmt: skip
GREETINGS = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
    b"\x05\x01\0", b"\x04\x01\0\x50\x7f\0\0\x01\0", b"EHLO x\r\n", b"INFO {}\r\nPING\r\n",
    b"\r\n" * 3_000,
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", b"\r\n\r\n\x00\r\n\r\n\x51ULLQUIT",
    b"*1\r\n$4\r\nPING\r\n",
    b"GET /\r\n", b"GET\r\n\r\n", b"\n\n\n", b"SSH-2.0-x\r\n", b"\0" * 5_000,
    b"GET " + b"/" * 40_000,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 1e308, 2**53, 2**63, 2**64, -(2**63) - 1, 10**400, "", "x", "\0",
    "\ud800", "\u2028 id: 1\n\n", "x" * 5_000, [], {}, [[]], [None], {"": None}, {"a": {"a": 1}},
    ["t"] * 2_000, {"__proto__": 1}, "NaN", "1e999", "../..", "p/../q", "\x1b[31m", "é" * 70,
)  # fmt: skip
TEXTS = (
    b"", b" ", b"{", b"}", b"[", b"null", b"NaN", b"Infinity", b"-", b"01", b"1e999", b'"', b"'{}'",
    b'{"a":1,"a":2}', b"{}{}", b"{},", b"\xef\xbb\xbf{}", b"\xff\xfe{\0}\0", b'{"a":"\xff"}',
    b'{"id":"\\ud800"}', b'{"a":"\\u12"}', b'{"a":"\x01"}', b"/**/{}", b"{a:1}", b"\0" * 100,
    b"[" * 20_000, b'{"a":' * 20_000, b"[" * 500 + b"]" * 500, b'{"context":' + b"9" * 4_000 + b"}",
    b'{"id":"p","tasks":' + b"[" * 900 + b"]" * 900 + b"}", b"{" + b'"a":1,' * 20_000 + b'"a":1}',
    b'{"tasks":[' + b"{}," * 5_000 + b"{}]}", b"-" * 5_000, b'"' + b"\\" * 9_999 + b'"',
)  # fmt: skip
TARGETS = (
    b"/v1/plans", b"", b"*", b"http://evil.test/v1/plans", b"evil.test:80", b"/v1/plans#x", b"/a b",
    b"?", b"/" + b"a" * 40_000, b"http://[::1", b"//evil.test/%2e", b"/\0", b"/\xff", b"/%",
)  # fmt: skip
QUERY_VALUES = (
    b"-1", b"0", b"9" * 400, b"1.5", b"1e9", b"NaN", b"", b"%30%31", b"%d9%a1", b"eyJhIjoxfQ",
    b"eyJhIjoxfQ==", b"bnVsbA", b"W10", b"x" * 5_000, b"a:b:c", b"=", b"&",
)  # fmt: skip
