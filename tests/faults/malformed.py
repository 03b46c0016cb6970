"""Malformed HTTP requests, drawn from a seeded grammar: the same seed gives the same requests.

Each is what a broken client, a scanner or an attacker writes to a socket. A request names its kind,
so that a report can say which kind was answered how.
"""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from tests.faults.malformed_parts import (
    BODIES,
    BYTES,
    CHUNKS,
    CREDENTIALS,
    FRAMINGS,
    GREETINGS,
    HEADERS,
    HOSTS,
    METHODS,
    PARAMETERS,
    QUERY_VALUES,
    READS,
    TARGETS,
    TEXTS,
    VALUES,
    VERSIONS,
)

Ending = Literal["half-closed", "held", "reset"]
"""What the sender does at the end: no more to come, wait for the server, break the connection."""


class Malformed(NamedTuple):
    """One request: the pieces that are written one after the other, and how the sender ends."""

    kind: str
    pieces: tuple[bytes, ...]
    ending: Ending


class Route(NamedTuple):
    """A route of the instance, with a body that fits it; None where it takes none."""

    method: str
    path: str
    body: Any = None


class Grammar:
    """Draws requests to an instance that answers to the name ``host``.

    ``credential`` is a header that most requests carry, so that they pass the door.
    """

    def __init__(self, seed: int, host: str, credential: bytes = b"") -> None:
        self._dice = random.Random(seed)
        self._host = host.encode()
        self._credential = credential
        self._routes = [Route("GET", path) for path in READS]
        self._routes += [Route("POST", path, body) for path, body in BODIES.items()]
        self._kinds: Sequence[tuple[str, Callable[[], bytes]]] = [
            ("request line", self._request_line), ("host", self._hosts),
            ("framing", self._framing), ("chunks", self._chunked), ("header", self._header),
            ("many headers", self._many_headers), ("query", self._query), ("path", self._path),
            ("JSON text", self._json_text), ("JSON value", self._json_value),
            ("credentials", self._credentials), ("no HTTP", self._no_http),
            ("pipelined", self._pipelined), ("changed bytes", self._changed),
        ]  # fmt: skip

    def draw(self) -> Malformed:
        """The next request."""
        kind, make = self._dice.choice(self._kinds)
        written, ending = make(), self._ending()
        if self._dice.random() < 0.1:
            kind, written = f"{kind}, cut off", written[: self._dice.randrange(len(written) + 1)]
        return Malformed(kind, self._in_pieces(written), ending)

    def _ending(self) -> Ending:
        return self._dice.choices(("half-closed", "held", "reset"), (80, 10, 10))[0]

    def _in_pieces(self, written: bytes) -> tuple[bytes, ...]:
        cuts = sorted(
            self._dice.randrange(len(written) + 1)
            for _ in range(self._dice.choice((0, 0, 0, 1, 5)))
        )
        return tuple(written[a:b] for a, b in zip([0, *cuts], [*cuts, len(written)], strict=True))

    # -- whole requests ---------------------------------------------------------------------

    def _request(
        self,
        route: Route | None = None,
        *,
        line: bytes | None = None,
        hosts: tuple[bytes, ...] | None = None,
        headers: Sequence[bytes] = (),
        body: bytes | None = None,
    ) -> bytes:
        """A request that is right but for what is given."""
        route = route or self._dice.choice(self._routes)
        if body is None and route.body is not None:
            body = json.dumps(route.body).encode()
        head = [line if line is not None else f"{route.method} {route.path} HTTP/1.1".encode()]
        head += [b"Host: " + each for each in ((self._host,) if hosts is None else hosts)]
        if self._credential:
            head.append(self._credential)
        head += headers
        if body is not None:
            head.append(b"Content-Type: application/json")
            head.append(b"Content-Length: %d" % len(body))
        return b"\r\n".join(head) + b"\r\n\r\n" + (body or b"")

    def _writing(self) -> Route:
        return self._dice.choice([each for each in self._routes if each.body is not None])

    def _request_line(self) -> bytes:
        method, version = self._dice.choice((b"GET", *METHODS)), b"HTTP/1.1"
        target = self._dice.choice((*TARGETS, b"/" + self._junk()))
        if self._dice.random() < 0.5:
            method, version = b"GET", self._dice.choice(VERSIONS)
        between = self._dice.choice((b" ", b" ", b"  ", b"\t", b""))
        return self._request(line=between.join((method, target, version)))

    def _hosts(self) -> bytes:
        return self._request(hosts=self._dice.choice(HOSTS))

    def _framing(self) -> bytes:
        framing, body = self._dice.choice(FRAMINGS)
        route = self._writing()
        line = f"POST {route.path} HTTP/1.1".encode()
        head = (line, b"Host: " + self._host, b"Content-Type: application/json", framing)
        more = (self._credential,) if self._credential else ()
        return b"\r\n".join((*head, *more)) + b"\r\n\r\n" + body

    def _chunked(self) -> bytes:
        line = f"POST {self._writing().path} HTTP/1.1".encode()
        head = (line, b"Host: " + self._host, b"Content-Type: application/json")
        more = (self._credential,) if self._credential else ()
        coding = b"Transfer-Encoding: chunked"
        return b"\r\n".join((*head, *more, coding)) + b"\r\n\r\n" + self._dice.choice(CHUNKS)

    def _header(self) -> bytes:
        wrong = self._dice.sample(HEADERS, self._dice.choice((1, 1, 2)))
        if self._dice.random() < 0.2:
            wrong.append(b"X-" + self._junk() + b": " + self._junk())
        return self._request(headers=wrong)

    def _many_headers(self) -> bytes:
        count = self._dice.choice((90, 101, 500, 5_000))
        name = self._dice.choice((b"A", b"Host", b"Cookie", b"Content-Length", b"Traceparent"))
        return self._request(headers=[b"%b: %d" % (name, n) for n in range(count)])

    def _query(self) -> bytes:
        name = self._dice.choice(PARAMETERS).encode()
        value = self._dice.choice((*QUERY_VALUES, self._junk()))
        query = self._dice.choice(
            (b"?%b=%b" % (name, value), b"?%b=%b&%b=1" % (name, value, name),
             b"?%b" % name, b"?" + b"&" * 3_000, b"?" + b"a=1&" * 3_000,
             b"?%b[]=%b" % (name, value), b"??%b" % value)
        )  # fmt: skip
        path = self._dice.choice(READS).encode()
        return self._request(Route("GET", "/"), line=b"GET " + path + query + b" HTTP/1.1")

    def _path(self) -> bytes:
        parts = self._dice.choice(self._routes)
        steps = parts.path.encode().split(b"/")
        steps[self._dice.randrange(len(steps))] = self._junk()
        line = parts.method.encode() + b" " + b"/".join(steps) + b" HTTP/1.1"
        return self._request(parts, line=line)

    def _json_text(self) -> bytes:
        body = self._dice.choice(TEXTS)
        if self._dice.random() < 0.5:
            right = json.dumps(self._writing().body).encode()
            at = self._dice.randrange(len(right) + 1)
            body = right[:at] + self._dice.choice((b"", *BYTES, body)) + right[at:][1:]
        return self._request(self._writing(), body=body)

    def _json_value(self) -> bytes:
        route = self._writing()
        wrong = json.loads(json.dumps(route.body))
        place = wrong
        while isinstance(place, dict | list) and place and self._dice.random() < 0.9:
            key: Any = self._dice.choice(
                list(place) if isinstance(place, dict) else range(len(place))
            )
            if not isinstance(place[key], dict | list) or self._dice.random() < 0.4:
                place[key] = self._dice.choice(VALUES)
                break
            place = place[key]
        if isinstance(place, dict) and self._dice.random() < 0.3:
            place[self._dice.choice(("", "unknown", "id", "owner", "\ud800"))] = self._dice.choice(
                VALUES
            )
        return self._request(route, body=json.dumps(wrong).encode())

    def _credentials(self) -> bytes:
        kept, self._credential = self._credential, b""
        try:
            return self._request(headers=[self._dice.choice(CREDENTIALS)])
        finally:
            self._credential = kept

    def _no_http(self) -> bytes:
        if self._dice.random() < 0.3:
            return self._dice.randbytes(self._dice.choice((1, 10, 1_000, 50_000)))
        return self._dice.choice(GREETINGS)

    def _pipelined(self) -> bytes:
        requests = [self._request() for _ in range(self._dice.choice((2, 3, 20)))]
        requests.append(self._dice.choice((self._no_http, self._header, self._framing))())
        if self._dice.random() < 0.5:
            self._dice.shuffle(requests)
        return b"".join(requests)

    def _changed(self) -> bytes:
        written = bytearray(self._request())
        for _ in range(self._dice.choice((1, 2, 8))):
            at = self._dice.randrange(len(written))
            match self._dice.randrange(4):
                case 0:
                    written[at] ^= 1 << self._dice.randrange(8)
                case 1:
                    del written[at : at + self._dice.choice((1, 4, 30))]
                case 2:
                    written[at:at] = self._dice.choice(BYTES)
                case _:
                    written[at:at] = written[at : at + 40]
            if not written:
                return b"\r\n"
        return bytes(written)

    def _junk(self) -> bytes:
        return b"".join(
            self._dice.choices((*BYTES, b"a", b"plans", b"1"), k=self._dice.choice((1, 2, 5)))
        )
