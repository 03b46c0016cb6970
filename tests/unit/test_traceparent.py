"""A trace goes from a plan to its attempts; what is no traceparent leads nowhere, quietly."""

import pytest

from streams.traceparent import (
    is_sampled,
    new_traceparent,
    of_attempt,
    received,
    received_tracestate,
    span_id_of,
    trace_id_of,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def test_every_attempt_has_a_span_of_its_own_in_the_plans_trace() -> None:
    attempts = [("p", "t", 1), ("p", "t", 2), ("p", "u", 1), ("q", "t", 1)]
    spans = {of_attempt(PARENT, *attempt) for attempt in attempts}
    assert len(spans) == len(attempts)
    assert {trace_id_of(span) for span in spans} == {TRACE}
    assert span_id_of(PARENT) not in {span_id_of(span) for span in spans}


def test_every_instance_names_the_same_span_for_an_attempt() -> None:
    assert of_attempt(PARENT, "p", "t", 1) == f"00-{TRACE}-ede40a64b7c35692-01"


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False)])
def test_whether_a_trace_is_sampled_is_passed_on(flags: str, sampled: bool) -> None:  # noqa: FBT001
    parent = PARENT[:-2] + flags
    assert is_sampled(parent) is sampled
    assert is_sampled(of_attempt(parent, "p", "t", 1)) is sampled


def test_new_traces_differ_and_are_sampled() -> None:
    one, other = new_traceparent(), new_traceparent()
    assert trace_id_of(one) not in (None, trace_id_of(other))
    assert is_sampled(one)


@pytest.mark.parametrize(
    "said",
    ["", "00", PARENT[:-1], PARENT.upper(), f"ff{PARENT[2:]}", PARENT.replace(TRACE, "0" * 32),
     PARENT + "\n", "00-" + "é" * 32 + PARENT[35:]],
)  # fmt: skip
def test_what_is_no_traceparent_leads_nowhere(said: str) -> None:
    assert (trace_id_of(said), span_id_of(said), is_sampled(said)) == (None, None, False)
    assert of_attempt(said, "p", "t", 1) == ""


SPAN = "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("said", "ours"),
    [
        (PARENT, PARENT),
        (f"cc{PARENT[2:]}", PARENT),
        (f"cc{PARENT[2:]}-what-the-future-will-be-like", PARENT),
        (f"  {PARENT}\t", PARENT),
        (f"00-{TRACE}-{SPAN}-09", PARENT),
        (f"00-{TRACE}-{SPAN}-08", f"00-{TRACE}-{SPAN}-00"),
        (f"{PARENT}-more", None),
        (f"cc{PARENT[2:]}.more", None),
        (f"ff{PARENT[2:]}", None),
        (PARENT.upper(), None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"cc{PARENT[2:]}-\n", None),
        ("", None),
    ],
)
def test_what_others_send_becomes_our_version(said: str, ours: str | None) -> None:
    assert received(said) == ours


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("vendor=abc", "vendor=abc"),
        (" a=1 ,, b=2\t", "a=1,b=2"),
        (",".join(f"v{n}=1" for n in range(32)), ",".join(f"v{n}=1" for n in range(32))),
        (",".join(f"v{n}=1" for n in range(33)), ""),
        ("a=" + "x" * 510, "a=" + "x" * 510),
        ("a=" + "x" * 511, ""),
        ("no list", ""),
        ("a=\u00e9", ""),
        ("a=1\r\nHoldfast-Actor: me", ""),
        ("", ""),
    ],
)
def test_the_state_of_a_trace_goes_on_whole_or_not_at_all(said: str, kept: str) -> None:
    assert received_tracestate(said) == kept
