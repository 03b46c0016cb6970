"""One recorded request: sent over a raw socket, its answer made comparable.

A line of a recording is a JSON object. What is asked:

- ``ask``: method and target; ``headers``: pairs; ``role``: whose token goes with it;
- the body, one of ``json`` (any JSON), ``text``, ``base64``, ``repeat`` ``[before, part, times,
  after]``; ``chunked``: it is sent in chunks, without its length; ``announced``: its length is
  announced, and nothing of it is sent;
- ``settle``: ``[path, status]``, what a plan must show before the request is made;
- ``until``: the answer is a stream, and is read up to this text.

What came: ``answer`` with ``status``, ``headers`` and ``body``; ``compare`` says how much of the
body counts: ``exact`` (the default), ``shape`` (names and types), ``nothing``. ``changed`` names
the issue that asked for an answer unlike the first one.
"""

import asyncio
import base64
import json
import re
from typing import Any

from service.http.origin_check import RESPONSE_HEADERS

Line = dict[str, Any]

WITHIN_S = 20.0
TOKENS = {
    role: f"hf_{role:0<8}_{'0123456789' * 4}{role:.3}"
    for role in ("viewer", "worker", "operator", "wrong")
}
# Different in every run. What a request brought itself is recorded as it is.
VARYING_HEADERS = {"x-request-id", "x-trace-id", "content-length"}
# Issue 10, 1: on every answer, as test_origin_check.py proves.
ADDED_HEADERS = {name.lower() for name, _ in RESPONSE_HEADERS}
VARYING = {
    "sequence", "fencing_token", "next", "trace_id", "traceparent", "duration_s", "epoch", "head",
    "first", "entry_id", "id",
}  # fmt: skip
IDS_THAT_ARE_MADE = re.compile(r"[0-9a-f]{32}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
# A stream's text: ids, times and other numbers of this run.
IN_TEXT = [
    (re.compile(r"(?m)^id: \d+$"), "id: <number>"),
    (re.compile(r"(?m)^retry: \d+$"), "retry: <number>"),
    (re.compile(r'"(sequence|head|first|requested)":\d+'), r'"\1":"<number>"'),
    (re.compile(r'"(epoch|traceparent|trace_id|instance)":"[^"]*"'), r'"\1":"<text>"'),
    (TIME, "<time>"),
]


def request_of(line: Line, host: str) -> bytes:
    """The request as it goes over the wire."""
    body = _body(line)
    headers = [("Host", host), *map(tuple, line.get("headers", ()))]
    if role := line.get("role"):
        headers.append(("Authorization", f"Bearer {TOKENS[role]}"))
    if "json" in line and not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", "application/json"))
    if line.get("chunked"):
        headers.append(("Transfer-Encoding", "chunked"))
        body = b"".join(_chunk(body[n : n + 65_536]) for n in range(0, len(body), 65_536))
        body += b"0\r\n\r\n"
    elif "announced" in line:
        headers.append(("Content-Length", str(line["announced"])))
    elif body or line["ask"].startswith("POST"):
        headers.append(("Content-Length", str(len(body))))
    head = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"{line['ask']} HTTP/1.1\r\n{head}\r\n".encode() + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _body(line: Line) -> bytes:
    if "json" in line:
        return json.dumps(line["json"], ensure_ascii=False, separators=(",", ":")).encode()
    if "base64" in line:
        return base64.b64decode(line["base64"])
    if "repeat" in line:
        before, part, times, after = line["repeat"]
        return (before + part * times + after).encode()
    return str(line.get("text", "")).encode()


class Answer:
    """The bytes of one answer, taken apart."""

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def comparable(self, line: Line) -> Line:
        """The answer without what differs from run to run."""
        asked = {value for _, value in line.get("headers", ())}
        headers = [[name, _header(name, value, asked)] for name, value in self.headers]
        headers = [pair for pair in headers if pair[0] not in ADDED_HEADERS]
        return {"status": self.status, "headers": headers, "body": self._comparable_body(line)}

    def _comparable_body(self, line: Line) -> object:
        how = line.get("compare", "exact")
        if how == "nothing" or not self.body:
            return "" if not self.body else "<anything>"
        media_type = dict(self.headers).get("content-type", "")
        if "json" in media_type:
            body = json.loads(self.body)
            return _shape(body) if how == "shape" else _steady(body, set(_texts(line)))
        text = self.body.decode()
        for pattern, instead in IN_TEXT:
            text = pattern.sub(instead, text)
        return text.split("\n")


def _header(name: str, value: str, asked: set[str]) -> str:
    if name == "allow":
        return ", ".join(sorted(value.split(", ")))
    return "<set>" if name in VARYING_HEADERS and value not in asked else value


def _texts(part: object) -> list[str]:
    """Every string that the request itself holds."""
    if isinstance(part, dict):
        return [text for value in part.values() for text in _texts(value)]
    if isinstance(part, list):
        return [text for value in part for text in _texts(value)]
    return [part] if isinstance(part, str) else []


def _steady(part: object, asked: set[str], name: str = "") -> object:
    """A body whose times, sequences and made ids are placeholders."""
    if isinstance(part, dict):
        return {key: _steady(value, asked, key) for key, value in part.items()}
    if isinstance(part, list):
        return [_steady(value, asked, name) for value in part]
    if name in VARYING and part is not None and part not in asked:
        return f"<{type(part).__name__}>"
    if isinstance(part, str):
        made = IDS_THAT_ARE_MADE.fullmatch(part)
        return "<made>" if made and part not in asked else TIME.sub("<time>", part)
    return part


def _shape(part: object) -> object:
    """Names and types only; a list is as long as one of its items."""
    if isinstance(part, dict):
        return {key: _shape(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_shape(part[0])] if part else []
    return "number" if isinstance(part, int | float) else "text or null"


async def exchange(url: str, line: Line) -> Answer:
    """Send the line's request over a connection of its own."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=2**25)
    try:
        async with asyncio.timeout(WITHIN_S):
            writer.write(request_of(line, f"{host}:{port}"))
            return await _answer(reader, line)
    except (TimeoutError, EOFError, OSError) as error:
        raise AssertionError(f"no whole answer to {json.dumps(line)[:300]}") from error
    finally:
        writer.transport.abort()


async def _answer(reader: asyncio.StreamReader, line: Line) -> Answer:
    first, *rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = [each.partition(": ") for each in rest if each]
    headers = sorted((name.lower(), value) for name, _, value in pairs)
    status, known = int(first.split()[1]), dict(headers)
    if line["ask"].startswith("HEAD") or status == 204:
        return Answer(status, headers, b"")
    if "content-length" in known:
        return Answer(status, headers, await reader.readexactly(int(known["content-length"])))
    return Answer(status, headers, await _chunks(reader, line.get("until", "").encode()))


async def _chunks(reader: asyncio.StreamReader, until: bytes) -> bytes:
    """A chunked body: to its end, or up to ``until``."""
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
        if until and until in body:
            return body[: body.index(until) + len(until)]
    return body
