"""Every shape that was ever stored decodes to the same event for ever."""

from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from streams import codec
from streams.codec import (
    HEADER_LINE,
    UPCASTERS,
    decode,
    encode_headers,
    encode_payload,
    split_headers,
    upcast,
)
from streams.log import BadFact, Fact, Origin
from streams.plan.events import TYPE_NAMES, Event, Paused, PlanEvent, Progress, Raw, Started
from tests.contract.golden.events import GOLDEN

FOLDER = Path(__file__).parents[1] / "contract" / "golden"


def stored(name: str) -> bytes:
    return (FOLDER / f"{name}.json").read_bytes().rstrip(b"\n")


def shape_of(golden: str) -> tuple[str, int]:
    """(event, version) out of ``task.claimed.v1.full``."""
    name, _, rest = golden.partition(".v")
    return name, int(rest.split(".")[0])


@pytest.mark.parametrize("golden", GOLDEN)
def test_a_stored_shape_decodes_to_the_same_event_for_ever(golden: str) -> None:
    name, version = shape_of(golden)
    event = GOLDEN[golden]
    headers = f"NATS/1.0\r\nHoldfast-Event: {name}\r\nHoldfast-Schema: {version}\r\n\r\n".encode()
    task_id = None if isinstance(event, PlanEvent) else "t"
    subject = "plans.p" if task_id is None else "plans.p.t"
    assert decode(1, 2.0, subject, headers, stored(golden)) == Fact(1, 2.0, "p", task_id, event)


@pytest.mark.parametrize("golden", GOLDEN)
def test_todays_shape_is_written_byte_for_byte(golden: str) -> None:
    if shape_of(golden) not in UPCASTERS:
        assert encode_payload(GOLDEN[golden]) == stored(golden)


def test_every_event_type_and_every_old_shape_has_a_golden_file() -> None:
    shapes = {shape_of(golden) for golden in GOLDEN}
    assert {name for name, _ in shapes} == set(TYPE_NAMES.values())
    assert set(UPCASTERS) <= shapes
    assert {path.stem for path in FOLDER.glob("*.json")} == set(GOLDEN)


def test_every_event_type_has_a_name_and_the_name_says_the_tag() -> None:
    kinds: set[Any] = {kind for part in get_args(Event) for kind in (get_args(part) or [part])}
    assert set(TYPE_NAMES) == kinds
    assert len(set(TYPE_NAMES.values())) == len(kinds)
    for kind, name in TYPE_NAMES.items():
        found: Any = msgspec.inspect.type_info(kind)
        family = "plan" if issubclass(kind, PlanEvent) else "task"
        assert name == f"{family}.{found.tag}"


def test_headers_are_written_as_golden_and_read_back() -> None:
    origin = Origin(actor="ann", instance="host:1:ab", traceparent="00-ab-cd-01")
    block = HEADER_LINE + encode_headers(Paused(), "id-1", origin) + b"\r\n"
    golden = (FOLDER / "headers.v1.txt").read_bytes()
    assert block.splitlines() == golden.splitlines()
    fact = decode(1, 2.0, "plans.p", block, b'{"event":"paused"}')
    assert fact == Fact(1, 2.0, "p", None, Paused(), "id-1", origin)


def test_the_state_of_a_trace_is_written_as_golden_and_read_back() -> None:
    trace = {"traceparent": "00-ab-cd-01", "tracestate": "vendor=abc,rojo=00f067aa0ba902b7"}
    origin = Origin(actor="ann", instance="host:1:ab", **trace)
    block = HEADER_LINE + encode_headers(Paused(), "id-1", origin) + b"\r\n"
    golden = (FOLDER / "headers.v1.tracestate.txt").read_bytes()
    assert block.splitlines() == golden.splitlines()
    fact = decode(1, 2.0, "plans.p", block, b'{"event":"paused"}')
    assert fact == Fact(1, 2.0, "p", None, Paused(), "id-1", origin)


def test_the_principal_is_written_as_golden_and_read_back() -> None:
    names = {"actor": "gpu-1/a", "instance": "host:1:ab", "principal": "gpu-1"}
    origin = Origin(**names, traceparent="00-ab-cd-01")
    block = HEADER_LINE + encode_headers(Paused(), "id-1", origin) + b"\r\n"
    golden = (FOLDER / "headers.v1.principal.txt").read_bytes()
    assert block.splitlines() == golden.splitlines()
    fact = decode(1, 2.0, "plans.p", block, b'{"event":"paused"}')
    assert fact == Fact(1, 2.0, "p", None, Paused(), "id-1", origin)


def test_an_old_shape_is_brought_up_step_by_step() -> None:
    def renamed(shape: dict[str, Any]) -> dict[str, Any]:
        return {"event": "paused", "why": shape["text"]}

    def renamed_again(shape: dict[str, Any]) -> dict[str, Any]:
        return {"event": "paused", "reason": shape["why"]}

    steps = {("plan.paused", 1): renamed, ("plan.paused", 2): renamed_again}
    lunch = Paused(reason="lunch")
    assert upcast("plan.paused", 1, b'{"text":"lunch"}', steps) == lunch
    assert upcast("plan.paused", 2, b'{"why":"lunch"}', steps) == lunch
    assert upcast("plan.paused", 3, b'{"event":"paused","reason":"lunch"}', steps) == lunch
    for version in (0, 4):
        with pytest.raises(ValueError, match=f"version {version}"):
            upcast("plan.paused", version, b"{}", steps)


def test_the_last_header_of_a_name_wins_and_odd_lines_are_passed_over() -> None:
    block = b"NATS/1.0\r\nA: 1\r\nodd\r\nA:2 \r\n: nameless\r\n\r\n"
    assert split_headers(block) == {b"A": b"2", b"": b"nameless"}


@pytest.mark.parametrize("headers", [b"", b"\xff: \xff\r\n", b"NATS/1.0\r\nNats-Msg-Id: \xff\r\n"])
def test_odd_headers_never_raise(headers: bytes) -> None:
    assert isinstance(decode(1, 2.0, "plans.p", headers, b'{"event":"paused"}'), Fact)


def test_a_bad_fact_keeps_its_place() -> None:
    bad = decode(7, 2.5, "plans.p", b"", b"{")
    assert isinstance(bad, BadFact)
    assert (bad.sequence, bad.at, bad.subject) == (7, 2.5, "plans.p")


def test_json_that_is_passed_on_unread_keeps_its_bytes() -> None:
    payload = b'{"event":"progress","owner":"w","attempt":1,"data":{"b": [1.50, 1e3],"a":null}}'
    fact = decode(1, 2.0, "plans.p.t", b"", payload)
    assert isinstance(fact, Fact)
    assert isinstance(fact.event, Progress)
    assert fact.event.data == Raw(b'{"b": [1.50, 1e3],"a":null}')


# -- the short way through a header block ---------------------------------------------------------

WRITTEN = encode_headers(Started(owner="w", attempt=1), "id-1")
FULL = Origin(actor="a b", instance="host:1:x", traceparent="00-1-2-01")
PROVED = Origin(actor="a", instance="host:1:x", principal="a b", traceparent="00-1-2-01")
STATE = Origin(actor="a b", traceparent="00-1-2-01", tracestate="v=1")
BLOCKS = [
    WRITTEN,
    encode_headers(Started(owner="w", attempt=1), "id-1", FULL),
    encode_headers(Started(owner="w", attempt=1), "id-1", Origin(instance="only this")),
    encode_headers(Started(owner="w", attempt=1), "id-1", FULL) + b"Nats-Batch-Id: x-1\r\n",
    encode_headers(Started(owner="w", attempt=1), "id-1", PROVED),
    encode_headers(Started(owner="w", attempt=1), "id-1", STATE),
    encode_headers(Started(owner="w", attempt=1), "id-1", PROVED) + b"Holdfast-Principal: z\r\n",
    WRITTEN + b"Nats-Batch-Id: x-1\r\ntracestate: v=2\r\n",
    WRITTEN + b"Nats-TTL: 86400s\r\nHoldfast-Actor: late\r\n",
    WRITTEN + b"Nats-Msg-Id: another\r\n",
    WRITTEN + b"traceparent:00-9-9-01\r\n",
    WRITTEN.replace(b"id-1", b"  id-1  "),
    WRITTEN.replace(b"id-1", b"id-1 "),
    WRITTEN.replace(b"id-1", b"i\rd"),
    WRITTEN + b"Holdfast-Actor: trails \r\ntraceparent: 00-1-2-01\t\r\n",
    WRITTEN.replace(b"Schema: 1", b"Schema: 9"),
    WRITTEN.replace(b"Schema: 1", b"Schema: one"),
    WRITTEN.replace(b"Holdfast-Event: ", b"Holdfast-Event:"),
    WRITTEN.replace(b"started\r\n", b"started \r\n"),
    WRITTEN.replace(b"Schema: 1", b"Actor: a"),
    WRITTEN.replace(b"Schema: 1", b"Schema: 1\r\nHoldfast-Actor: a"),
    b"Holdfast-Actor: \xff\r\n" + WRITTEN,
    WRITTEN + b"Holdfast-Actor: \xff \xfe\r\nHoldfast-Instance:  x\r\n",
    b"Nats-Msg-Id: alone\r\n",
    b"no colon\r\n",
    b"",
]


@pytest.mark.parametrize("lines", BLOCKS)
def test_the_short_way_through_headers_leads_where_the_long_one_does(lines: bytes) -> None:
    more = b"Unknown: a traced line, which takes the long way\r\n"
    for payload in (b'{"event":"started"}', encode_payload(Started(owner="w", attempt=1))):
        short, long = (
            decode(7, 1.5, "plans.p.t", HEADER_LINE + block + b"\r\n", payload)
            for block in (lines, more + lines)
        )
        assert short == long


def test_what_is_written_takes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = encode_payload(Started(owner="w", attempt=1))
    blocks = [HEADER_LINE + lines + b"\r\n" for lines in BLOCKS[:6]]
    first = [decode(7, 1.5, "plans.p.t", block, payload) for block in blocks]  # of each author
    monkeypatch.setattr(codec, "split_headers", None)
    again = [decode(7, 1.5, "plans.p.t", block, payload) for block in blocks]
    assert again == first
    assert all(isinstance(each, Fact) for each in again)
