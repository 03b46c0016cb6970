"""JSON that is passed on unread says the same to every reader, or is refused."""

import decimal
import enum
import gc
import time

import msgspec
import pytest
from msgspec import Raw

from streams.json_values import MAX_DEPTH, MAX_PARTS, NotJson, check, encoded


def nested(levels: int) -> object:
    value: object = []
    for _ in range(levels - 1):
        value = [value]
    return value


def circle() -> object:
    value: list[object] = []
    value.append(value)
    return value


class Number(enum.IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    "value",
    [
        None, True, "text", 2**200, 0.1, [], {"a": [None, 1.5]}, {1: "a", 2: "b"}, b"\x00\xff",
        {"none": None}, decimal.Decimal("0.1"), nested(MAX_DEPTH), Raw(b'{ "a" : [ ] }'),
        {"wide": [{}] * 1000},
    ],
)  # fmt: skip
def test_what_json_can_hold_is_written(value: object) -> None:
    data = encoded(value)
    assert msgspec.json.decode(data) == msgspec.json.decode(msgspec.json.encode(value))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"scores": [1.0, float("nan")]}, r"\$\.scores\[1\] is NaN or infinite"),
        (float("-inf"), r"\$ is NaN"),
        ({1: "a", "1": "b"}, "the key '1' stands twice"),
        ({Number.ONE: "a", 1: "b"}, None),
        ({"in": [{2: 0, "2": 0}]}, "the key '2' stands twice"),
        (Raw(b'{"a": 1, "a": 2}'), "the key 'a' stands twice"),
        (Raw(b"[1"), "truncated"),
        (Raw(b"NaN"), "malformed"),
        (Raw(b""), "truncated"),
        ("half a pair: \udcff", "valid Unicode"),
        ({"\ud800": 1}, "valid Unicode"),
        (object(), "object"),
        ((number for number in range(3)), "generator"),
        (circle(), f"more than {MAX_DEPTH} levels"),
        (nested(MAX_DEPTH + 1), f"more than {MAX_DEPTH} levels"),
        ([None, nested(980)], f"more than {MAX_DEPTH} levels"),
        (Raw(b"[" * 20_000 + b"]" * 20_000), f"more than {MAX_DEPTH} levels"),
    ],
)
def test_what_it_cannot_hold_is_refused_with_its_place(value: object, words: str | None) -> None:
    if words is None:  # one key already in Python
        assert len(msgspec.json.decode(encoded(value))) == 1
        return
    with pytest.raises(NotJson, match=words):
        encoded(value)


@pytest.mark.parametrize("part", ["[]", '{"a":1}', '{"a":{"b":[]}}'])
def test_the_parts_of_a_value_are_bounded(part: str) -> None:
    parts = sum(map(part.count, "[{:"))
    within = f"[{','.join([part] * ((MAX_PARTS - 1) // parts))}]"
    check(within.encode())
    with pytest.raises(NotJson, match="more than 200,000 arrays, objects and members"):
        check(f"[{within},{part}]".encode())
    check(msgspec.json.encode([part] * MAX_PARTS))  # texts


def test_numbers_of_many_digits_cost_no_more_than_others() -> None:
    def took_s(number: str) -> float:
        body = f"[{','.join([number] * 20_000)}]".encode()
        began = time.thread_time()
        check(body)
        return time.thread_time() - began

    few, many = (
        min(took_s(n) for _ in range(12)) for n in ("1.5", "1.2345678901234567890123e-300")
    )
    assert many < few * 8  # they are ten times as long
    with pytest.raises(NotJson, match="out of range"):
        check(b"[1e999]")


def test_white_space_and_spelling_are_no_reason_to_refuse() -> None:
    check(b' { "a" : 1.0e0 , "b" : "\\u0041" } ')


@pytest.mark.parametrize("part", ["[]", "{}", '{"a":1}', '""'])
def test_many_small_parts_are_checked_without_a_collection_for_each_seven_hundred(
    part: str,
) -> None:
    body = f"[{','.join([part] * 99_000)}]".encode()
    collections: list[str] = []

    def note(phase: str, _: dict[str, int]) -> None:
        collections.append(phase)

    gc.callbacks.append(note)
    try:
        check(body)
    finally:
        gc.callbacks.remove(note)
    assert collections.count("start") <= 3
    assert gc.isenabled()
