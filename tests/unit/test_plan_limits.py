"""Stored facts are bounded, requests and handlers obey the bounds, nothing else is written."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from msgspec.inspect import (
    DictType,
    FloatType,
    IntType,
    StrType,
    StructType,
    UnionType,
    VarTupleType,
    type_info,
)

from service.http import schemas
from service.settings.config import MAX_LEASE_S
from streams import codec
from streams.log import BadFact, Fact
from streams.plan import commands, limits
from streams.plan.decisions import Invalid
from streams.plan.events import (
    TYPE_NAMES,
    Completed,
    Failed,
    Heartbeat,
    Released,
    Submitted,
    TaskSpec,
)
from streams.plan.results import TokenUsage, Verdict
from tests.memory_log import MemoryLog
from tests.unit.claim_story import Instance, LogTime
from tests.unit.plan_story import claim, complete, fail, given, release, task

HUGE = 10**400
BEYOND = [
    ("task.claimed", "p.t", {"owner": "w", "attempt": 1, "lease_s": 1e300}),
    ("task.claimed", "p.t", {"owner": "w", "attempt": 1, "lease_s": 0}),
    ("task.claimed", "p.t", {"owner": "w", "attempt": HUGE, "lease_s": 1}),
    ("task.claimed", "p.t", {"owner": "w" * 257, "attempt": 1, "lease_s": 1}),
    ("task.heartbeat", "p.t", {"owner": "w", "attempt": 1, "lease_s": -1}),
    ("task.failed", "p.t", {"owner": "w", "attempt": 1, "error_type": "x", "retry_in_s": 1e12}),
    ("task.completed", "p.t", {"owner": "w", "attempt": 1, "token_usage": {"input_tokens": -1}}),
    ("plan.submitted", "p", {"tasks": [{"id": "t", "kind": "k", "timeout_s": 1e9}]}),
    ("plan.submitted", "p", {"tasks": [{"id": "t", "kind": "k", "priority": 2**63}]}),
    ("plan.submitted", "p", {"tasks": [{"id": "t", "kind": "k"}] * (limits.MAX_TASKS + 1)}),
]


def unbounded(kind: Any, place: str) -> Iterator[str]:
    """The places inside a type where a value may be as large as its writer likes."""
    match kind:
        case IntType() | FloatType():
            low, high = (kind.ge, kind.gt), (kind.le, kind.lt)
            if low == (None, None) or high == (None, None):
                yield place
        case StrType() | DictType() | VarTupleType() if kind.max_length is None:
            yield place
        case _:
            pass
    for name, inner in _inside(kind):
        yield from unbounded(inner, f"{place}{name}")


def _inside(kind: Any) -> list[tuple[str, Any]]:
    match kind:
        case DictType():
            return [(".key", kind.key_type), (".value", kind.value_type)]
        case VarTupleType():
            return [("[]", kind.item_type)]
        case UnionType():
            return [("", each) for each in kind.types]
        case StructType():
            return [(f".{field.name}", field.type) for field in kind.fields]
        case _:
            return []


def largest(kind: Any) -> dict[str, float]:
    """The upper bounds of a type by constraint, the loosest of a union."""
    match kind:
        case UnionType():
            found: dict[str, float] = {}
            for each in kind.types:
                found |= largest(each)
            return found
        case IntType() | FloatType():
            bounds = [each for each in (kind.le, kind.lt) if each is not None]
            lows = [-each for each in (kind.ge, kind.gt) if each is not None]
            return {"value": bounds[0], "-value": lows[0]}
        case StrType():
            # A pattern with a count bounds the length, too: every one of ours ends "{1,N}$".
            pattern = kind.pattern or ""
            counted = "}" in pattern and int(pattern.rsplit(",", 1)[1].split("}")[0])
            return {"length": kind.max_length or counted or float("inf")}
        case DictType() | VarTupleType():
            return {"length": kind.max_length or float("inf")}
        case _:
            return {}


@pytest.mark.parametrize("event", TYPE_NAMES, ids=TYPE_NAMES.get)
def test_every_field_of_a_stored_fact_is_bounded(event: type) -> None:
    assert list(unbounded(type_info(event), event.__name__)) == []


BOUNDARIES = [
    (schemas.TaskBody, TaskSpec),
    (schemas.PlanBody, Submitted),
    (schemas.TokenUsageBody, TokenUsage),
    (schemas.VerdictBody, Verdict),
    (schemas.ClaimBody, Heartbeat),
    (schemas.OwnerBody, Heartbeat),
    (schemas.CompleteBody, Completed),
    (schemas.FailBody, Failed),
    (schemas.ReleaseBody, Released),
    (schemas.CompletedItem, Completed),
    (schemas.FailedItem, Failed),
    (schemas.ReleasedItem, Released),
]


@pytest.mark.parametrize(("body", "stored"), BOUNDARIES)
def test_the_http_layer_accepts_no_more_than_a_fact_may_hold(body: type, stored: type) -> None:
    accepted = {field.name: largest(field.type) for field in type_info(body).fields}  # type: ignore[attr-defined]
    for field in type_info(stored).fields:  # type: ignore[attr-defined]
        for constraint, bound in largest(field.type).items():
            assert accepted.get(field.name, {}).get(constraint, bound) <= bound, field.name


def test_settings_accept_no_longer_lease_than_a_fact_may_hold() -> None:
    assert MAX_LEASE_S <= limits.MAX_LEASE_S


@pytest.mark.parametrize(("name", "subject", "fields"), BEYOND)
def test_a_message_beyond_a_bound_is_a_bad_fact(
    name: str, subject: str, fields: dict[str, object]
) -> None:
    import json  # noqa: PLC0415 - msgspec writes no integer of 400 digits

    payload = json.dumps({"event": name.partition(".")[2], **fields}).encode()
    fact = codec.decode(1, 0.0, f"plans.{subject}", b"", payload)
    assert isinstance(fact, BadFact)


UNREADABLE = [
    commands.Complete(
        plan_id="p", task_id="a", owner="w1", attempt=1, token_usage=TokenUsage(input_tokens=-1)
    ),
    commands.Complete(plan_id="p", task_id="a", owner="w1", attempt=1, output=Raw(b"[" * 5_000)),
    commands.Fail(
        plan_id="p", task_id="a", owner="w1", attempt=1, error_type="x", error_message="\udce9"
    ),
    commands.Fail(
        plan_id="p", task_id="a", owner="w1", attempt=1, error_type="x", retry_in_s=1.8e12
    ),
    commands.Fail(
        plan_id="p", task_id="a", owner="w1", attempt=1, error_type="x", retry_in_s=float("nan")
    ),
    commands.Progress(plan_id="p", task_id="a", owner="w1", attempt=1, data=Raw(b'"\\ud800"')),
]


@pytest.mark.parametrize("command", UNREADABLE)
async def test_a_fact_that_could_not_be_read_again_is_refused_and_never_written(
    command: commands.OwnerCommand,
) -> None:
    clock = LogTime()
    log = MemoryLog(clock)
    here = Instance(log, clock, "a")
    await here.submit("p", task("a", lease_s=60))
    await here.say(commands.Claim(plan_id="p", task_id="a", owner="w1"))
    assert isinstance(await here.say(command), Invalid)
    assert (await log.state()).head == 2
    # The owner can still end its attempt.
    done = commands.Complete(plan_id="p", task_id="a", owner="w1", attempt=1)
    assert not isinstance(await here.say(done), Invalid)
    assert all(isinstance(fact, Fact) for fact in await log.read("p"))


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (TokenUsage(input_tokens=3, output_tokens=4), 7),
        (TokenUsage(input_tokens=3, output_tokens=4, total_tokens=9), 9),
        (TokenUsage(input_tokens=limits.LARGEST, output_tokens=1), limits.LARGEST),
        (TokenUsage(), 0),
    ],
)
def test_a_total_that_the_worker_left_out_is_written_into_the_fact(
    said: TokenUsage, kept: int
) -> None:
    for say in (complete, fail, release):
        word = say("a", token_usage=said, by="w1")
        story = given(task("a")).when(claim("a"), word)
        result = story.task("a").result
        assert isinstance(result, Completed | Failed | Released)
        assert result.token_usage is not None
        assert result.token_usage.total_tokens == kept
        story.when(word).duplicate()


def test_a_fact_at_its_bounds_is_read() -> None:
    spec = TaskSpec(id="t", kind="k" * 256, lease_s=limits.MAX_LEASE_S, max_retries=1_000)
    assert codec.encode_payload(Submitted(tasks=(spec,)))
    assert msgspec.json.decode(msgspec.json.encode(spec), type=TaskSpec) == spec
