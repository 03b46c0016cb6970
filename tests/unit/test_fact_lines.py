"""A message of the log as a line of JSON, whatever stands in it."""

import base64
import json

import pytest

from service.archive.fact_lines import line_of
from streams.codec import HEADER_LINE, encode_headers, encode_payload
from streams.log import LogMessage, Origin
from streams.plan.events import Paused


def message(payload: bytes, headers: bytes = b"") -> LogMessage:
    return LogMessage(7, 1_700_000_000.25, "plans.p", HEADER_LINE + headers + b"\r\n", payload)


def test_a_fact_shows_who_wrote_it_and_under_which_trace() -> None:
    origin = Origin(actor="me", instance="i", principal="token", traceparent="00-1-2-01")
    event = Paused(reason="noch\nnicht")

    line = line_of(message(encode_payload(event), encode_headers(event, "id-1", origin)))

    assert line.count(b"\n") == 1
    assert json.loads(line) == {
        "sequence": 7,
        "time": "2023-11-14T22:13:20.250000Z",
        "subject": "plans.p",
        "event": "plan.paused",
        "schema": 1,
        "headers": {
            "Holdfast-Actor": "me",
            "Holdfast-Instance": "i",
            "Holdfast-Principal": "token",
            "Nats-Msg-Id": "id-1",
            "traceparent": "00-1-2-01",
        },
        "payload": {"event": "paused", "reason": "noch\nnicht"},
    }


@pytest.mark.parametrize("payload", [b"", b"{", b"\xff", b'{"a": 1} trailing', b"[" * 5_000])
def test_a_payload_that_is_not_json_is_kept_in_base64(payload: bytes) -> None:
    line = json.loads(line_of(message(payload, b"Holdfast-Schema: x\r\n")))

    assert base64.b64decode(line["payload_base64"]) == payload
    assert (line["event"], line["schema"]) == (None, None)


def test_a_payload_with_line_breaks_is_one_line_with_the_same_numbers() -> None:
    line = line_of(message(b'{\n "a": 1.10,\n "b": 123456789012345678901234567890}'))

    assert line.count(b"\n") == 1
    assert b'{"a":1.10,"b":123456789012345678901234567890}' in line
