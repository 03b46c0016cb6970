"""Known secrets are replaced wherever they stand, in every form, and JSON stays JSON."""

import json
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from service.core.secrets_in_plans import key_warnings
from service.runtime.masking import MASK, GrowingText, Masking
from streams.plan.commands import Complete, Fail
from streams.plan.events import Submitted, TaskSpec

PRECIOUS = 'k"ey\\with/ümlaut 1'


@pytest.fixture
def masking() -> Masking:
    masking = Masking()
    masking.know([PRECIOUS, "0123456789", "short", ""])
    return masking


@pytest.mark.parametrize(
    "form",
    [PRECIOUS, json.dumps(PRECIOUS), json.dumps(PRECIOUS, ensure_ascii=False),
     json.dumps(json.dumps(PRECIOUS)), quote(PRECIOUS), quote(PRECIOUS, safe="")],
)  # fmt: skip
def test_every_form_is_masked(masking: Masking, form: str) -> None:
    text = f"before {form} after"
    masked = masking.text(text)
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert MASK in masked
    assert "mlaut" not in masked


def test_the_longest_comes_first() -> None:
    masking = Masking()
    masking.know(["password", "password-and-more"])
    assert masking.text("password-and-more, password") == "***, ***"


def test_short_values_are_left_alone(masking: Masking) -> None:
    assert masking.text("a short text") == "a short text"


@pytest.mark.parametrize(
    "document",
    [PRECIOUS, [PRECIOUS], {PRECIOUS: 1}, {"a": {"b": [1, PRECIOUS]}}, {"number": 123456789012345},
     {"0123456789": None}, json.dumps({"nested": PRECIOUS})],
)  # fmt: skip
def test_json_stays_json(masking: Masking, document: object) -> None:
    masked = masking.json(msgspec.json.encode(document))
    found = msgspec.json.decode(masked)
    assert type(found) is type(document)
    assert "mlaut" not in masked.decode()
    assert masking.json(b'{"pin": 0123456789}') == b'"***"', "what is no JSON is masked whole"
    assert msgspec.json.decode(masking.json(b'{"pin":10123456789.5}')) == {"pin": MASK}


def test_a_workers_word_is_masked_but_for_names(masking: Masking) -> None:
    named = {"plan_id": "0123456789", "task_id": "t", "owner": "w", "attempt": 1}
    done = Complete(**named, output=Raw(msgspec.json.encode({"said": PRECIOUS})))
    failed = Fail(**named, error_type="other", error_message=f"401: {PRECIOUS}")
    keep = frozenset({"plan_id", "task_id", "owner"})
    assert bytes(masking.struct(done, keep).output) == b'{"said":"***"}'
    assert masking.struct(failed, keep).error_message == "401: ***"
    assert masking.struct(done, keep).plan_id == "0123456789"
    clean = Complete(**named, output=Raw(b'{"a":1}'))
    assert masking.struct(clean, keep) is clean


KEYS = [
    "sk-abcdefghijklmnopqrstuvwx", "AKIAIOSFODNN7EXAMPLE", "ghp_" + "a" * 36, "xoxb-1234567890ab",
    "Bearer abcdefghijklmnopqrst", "-----BEGIN RSA PRIVATE KEY-----", "hf_" + "a" * 34,
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_what_looks_like_a_key_is_warned_of_without_quoting_it(key: str) -> None:
    task = TaskSpec(id="t", kind="k", input=Raw(msgspec.json.encode({"headers": {"x": key}})))
    (warning,) = key_warnings(Submitted(tasks=(task,)))
    assert warning.startswith("task 't': input")
    assert key not in warning


@pytest.mark.parametrize(
    "text", ["risk-assessment-of-everything-there-is", "task-1", "Basic idea", "the Bearer of news"]
)
def test_what_does_not_is_not(text: str) -> None:
    task = TaskSpec(id="t", kind="k", input=Raw(msgspec.json.encode({"text": text})))
    assert key_warnings(Submitted(name=text, tasks=(task,))) == ()


@given(
    st.lists(
        st.sampled_from(["a", "b", "ab", "abab-1234", "abab-123", "4", "-", "567"]), max_size=40
    ),
    st.integers(1, 7),
)
def test_a_growing_text_is_masked_as_the_whole_wherever_it_is_cut(
    parts: list[str], size: int
) -> None:
    masking = Masking()
    masking.know(["abab-1234", "abab-1234567", "b-123456"])
    whole = "".join(parts)
    growing = GrowingText(masking)
    pieces = [growing.add(whole[at : at + size]) for at in range(0, len(whole), size)]
    assert "".join([*pieces, growing.end()]) == masking.text(whole)


def test_text_that_is_no_beginning_of_a_secret_is_shown_at_once(masking: Masking) -> None:
    growing = GrowingText(masking)
    assert growing.add("Hello, ") == "Hello, "
    assert growing.add("this is k") == "this is "
    assert growing.add("ept, 01234") == "kept, "
    assert growing.end() == "01234"
