"""Equality of JSON: two values are the same whatever their spelling, and no two others are."""

import pytest
from msgspec import Raw

from streams.plan.canonical import LONGEST_EXPONENT, canonical, same_json
from streams.plan.decisions import Duplicate, GuardReject, PlanExists
from streams.plan.events import Verdict
from streams.plan.outputs import INLINE_BYTES
from tests.unit.plan_story import claim, complete, critic, given, submit, task

SAME = [
    ('{"a":1,"b":2}', '{ "b" : 2,\n "a" : 1 }'),
    ('"\\u00e9/"', '"é\\/"'),
    ('{"x":1}', '{"x":1.0}'),
    ("100", "1e2"),
    ("9007199254740993", "9007199254740993.0"),
    ("0.1", "0.1000000000000000055"),
    ("-0.0", "0"),
    ("1e-400", "0"),
    ("123456789012345678901234567890", "1.2345678901234567890123456789e29"),
]
DIFFERENT = [
    ('{"x":true}', '{"x":1}'),
    ('{"x":[false]}', '{"x":[0]}'),
    ('{"x":true}', '{"x":1.0}'),
    ('"1"', "1"),
    ('{"x":null}', "{}"),
    ("9007199254740993", "9007199254740992"),
    ('"\\u00e9"', '"e\\u0301"'),
    ("[1,2]", "[2,1]"),
    ('{"a":{"b":[{"c":true}]}}', '{"a":{"b":[{"c":1}]}}'),
]
UNREADABLE = [b'"\\ud800"', b"1e%d" % (LONGEST_EXPONENT + 1), b"[" * 5_000 + b"]" * 5_000, b"{"]


@pytest.mark.parametrize(("a", "b"), SAME)
def test_the_spelling_of_a_value_does_not_matter(a: str, b: str) -> None:
    assert same_json(Raw(a.encode()), Raw(b.encode()))
    _answers(a, b, result=Duplicate, plan=Duplicate)


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_different_values_are_different(a: str, b: str) -> None:
    assert not same_json(Raw(a.encode()), Raw(b.encode()))
    _answers(a, b, result=GuardReject, plan=PlanExists)


def _answers(a: str, b: str, *, result: type, plan: type) -> None:
    """What is answered when ``b`` is said after ``a``: output, feedback, input and context."""
    first, second = a.encode(), b.encode()
    ended = given(task("a")).when(claim("a"), complete("a", first, by="w1"))
    ended.when(complete("a", second, by="w1")).answered(result)
    judged = given(task("a"), critic("c", of="a")).when(claim("a"), complete("a"), claim("c"))
    verdicts = [Verdict(pass_=True, feedback=Raw(each)) for each in (first, second)]
    judged.when(*(complete("c", by="w1", verdict=verdict) for verdict in verdicts))
    judged.answered(result)
    long = [b"[%b,%b]" % (each, b'"' + b"x" * INLINE_BYTES + b'"') for each in (first, second)]
    apart = given(task("a")).when(claim("a"), complete("a", long[0], by="w1"))
    apart.when(complete("a", long[1], by="w1")).answered(result)
    given(task("a", input=first)).when(submit(task("a", input=second))).answered(plan)
    context = given(task("a"), context=Raw(first))
    context.when(submit(task("a"), context=Raw(second))).answered(plan)


@pytest.mark.parametrize("text", UNREADABLE)
def test_what_cannot_be_read_equals_only_itself(text: bytes) -> None:
    assert canonical(text) == text
    assert same_json(text, text)
    assert not same_json(text, text + b" ")


def test_the_order_of_tasks_and_of_dependencies_is_free() -> None:
    a, b = task("a"), task("b")
    story = given(a, b, task("c", after="a b"), labels={"x": "1", "y": "2"})
    story.when(submit(b, task("c", after="b a"), a, labels={"y": "2", "x": "1"})).duplicate()
    story.when(submit(a, b, task("c", after="a"))).answered(PlanExists)


def test_a_default_time_that_is_stated_is_the_same_plan() -> None:
    given(task("a")).when(submit(task("a", lease_s=15.0, timeout_s=120.0))).duplicate()
    given(task("a")).when(submit(task("a", lease_s=16.0))).answered(PlanExists)


def test_a_default_that_is_stated_is_the_same_plan() -> None:
    story = given(task("a"), task("b", after="a"))
    stated = task("a", input=b" {} ", lease_s=15, timeout_s=120.0, max_retries=3, join="all")
    story.when(submit(stated, task("b", after="a"), context=Raw(b"{ }"), priority=0)).duplicate()
    story.when(submit(stated, task("b", after="a", lease_s=16))).answered(PlanExists)
