"""Bad input is refused before the core is asked, with the place named; good input arrives whole."""

import asyncio
import json
import time

import pytest
from hypothesis import given, strategies
from litestar.testing import AsyncTestClient

from service.core.answers import Submission
from service.http.strict_json import MAX_BODY_BYTES
from streams.json_values import MAX_DEPTH, deeper_than
from tests.unit.http_world import ACCEPTED, Caller, FakeCore

JSON = {"content-type": "application/json"}
START = "/v1/plans/p/tasks/t/start"
COMPLETE = "/v1/plans/p/tasks/t/complete"
PLANS = "/v1/plans"
SUBMITTED = Submission(plan_id="p", sequence=1, created=True)


def plan(**more: str) -> bytes:
    """A plan with one task, whose fields are given as raw JSON."""
    fields = {"id": '"a"', "kind": '"echo"'} | more
    inside = ",".join(f'"{name}":{value}' for name, value in fields.items())
    return b'{"tasks":[{%b}]}' % inside.encode()


def nested(levels: int) -> bytes:
    return b'{"owner":"w","attempt":1,"output":' + b"[" * levels + b"]" * levels + b"}"


LOST_RESULT = (
    b'{"owner":"w","results":[{"outcome":"completed","plan_id":"p","task_id":"t","attempt":1,'
    b'"output":1e999}]}'
)

BODIES: list[tuple[str, bytes, str]] = [
    # what is not JSON, or not the JSON expected
    (START, b"", "body"),
    (START, b"{", "body"),
    (START, b"nonsense", "body"),
    (START, b"\xff\xfe{}", "body"),
    (START, b"\xef\xbb\xbf{}", "body"),
    (START, b"[]", "body"),
    (START, b"null", "body"),
    (START, b'"text"', "body"),
    (START, b'{"owner":"w","attempt":1}{}', "body"),
    (START, b'{"owner":"w","attempt":NaN}', "body"),
    # fields missing, unknown, of the wrong type, out of bounds
    (START, b"{}", "owner"),
    (START, b'{"owner":"w"}', "attempt"),
    (START, b'{"owner":"w","attempt":1,"atempt":1}', "atempt"),
    (START, b'{"owner":1,"attempt":1}', "owner"),
    (START, b'{"owner":"","attempt":1}', "owner"),
    (START, b'{"owner":"a b","attempt":1}', "owner"),
    (START, b'{"owner":"w\\n","attempt":1}', "owner"),
    (START, b'{"owner":"\xc3\xa9","attempt":1}', "owner"),
    (START, b'{"owner":"' + b"w" * 129 + b'","attempt":1}', "owner"),
    (START, b'{"owner":"\xff","attempt":1}', "body"),
    (START, b'{"owner":"w","attempt":0}', "attempt"),
    (START, b'{"owner":"w","attempt":-1}', "attempt"),
    (START, b'{"owner":"w","attempt":1.5}', "attempt"),
    (START, b'{"owner":"w","attempt":true}', "attempt"),
    (START, b'{"owner":"w","attempt":"1"}', "attempt"),
    (START, b'{"owner":"w","attempt":99999999999999999999999}', "attempt"),
    (START, b'{"owner":"w","attempt":1e400}', "attempt"),
    # JSON that is passed on unread
    (COMPLETE, b'{"owner":"w","attempt":1,"output":"\\ud800"}', "surrogate"),
    (COMPLETE, b'{"owner":"w","attempt":1,"output":"\xff"}', "output"),
    (COMPLETE, b'{"owner":"w","attempt":1,"output":1e999}', "output"),
    (COMPLETE, b'{"owner":"w","attempt":1,"output":[1,{"a":-1e999}]}', "output"),
    (COMPLETE, b'{"owner":"w","attempt":1,"output":NaN}', "body"),
    (COMPLETE, b'{"owner":"w","attempt":1,"output":01}', "body"),
    (COMPLETE, b'{"owner":"w","attempt":1,"output":' + b"9" * 5000 + b"}", "output"),
    (COMPLETE, nested(MAX_DEPTH), "nested"),
    (COMPLETE, nested(100_000), "nested"),
    (COMPLETE, b'{"owner":"w","attempt":1,"verdict":{"pass":1}}', "verdict.pass"),
    (COMPLETE, b'{"owner":"w","attempt":1,"verdict":{}}', "verdict"),
    (COMPLETE, b'{"owner":"w","attempt":1,"model_name":""}', "model_name"),
    (COMPLETE, b'{"owner":"w","attempt":1,"token_usage":{"input_tokens":-1}}', "input_tokens"),
    (COMPLETE, b'{"owner":"w","attempt":1,"token_usage":{"tokens":1}}', "tokens"),
    # plans
    (PLANS, b'{"tasks":[]}', "tasks"),
    (PLANS, plan(id='""'), "tasks[0].id"),
    (PLANS, plan(id='"a.b"'), "tasks[0].id"),
    (PLANS, plan(id='"a\\n"'), "tasks[0].id"),
    (PLANS, plan(id='"' + "a" * 65 + '"'), "tasks[0].id"),
    (PLANS, plan(type='"boss"'), "tasks[0].type"),
    (PLANS, plan(join='"some"'), "tasks[0].join"),
    (PLANS, plan(input='"\\udc00"'), "surrogate"),
    (PLANS, plan(timeout_s="0"), "tasks[0].timeout_s"),
    (PLANS, plan(timeout_s="1e308"), "tasks[0].timeout_s"),
    (PLANS, plan(lease_s="-1"), "tasks[0].lease_s"),
    (PLANS, plan(priority="2147483648"), "tasks[0].priority"),
    (PLANS, plan(max_retries="-1"), "tasks[0].max_retries"),
    (PLANS, plan(quorum="0"), "tasks[0].quorum"),
    (PLANS, plan(owner='"x"'), "owner"),
    (PLANS, plan()[:-1] + b',"labels":{"":"x"}}', "labels"),
    (PLANS, plan()[:-1] + b',"labels":{"k":"\\u0000"}}', "labels"),
    (PLANS, plan()[:-1] + b',"labels":{"k":1}}', "labels"),
    (PLANS, plan()[:-1] + b',"labels":{"k=v":"x"}}', "without ="),
    (PLANS, plan()[:-1] + b',"name":"' + b"n" * 257 + b'"}', "name"),
    (PLANS, plan()[:-1] + b',"context":"\\ud800"}', "surrogate"),
    (PLANS, plan()[:-1] + b',"context":[1e999]}', "context"),
    (PLANS, plan()[:-1] + b',"id":"../x"}', "id"),
    # claims and batches
    ("/v1/claims", b'{"owner":"w","limit":0}', "limit"),
    ("/v1/claims", b'{"owner":"w","limit":501}', "limit"),
    ("/v1/claims", b'{"owner":"w","wait_s":31}', "wait_s"),
    ("/v1/claims", b'{"owner":"w","lease_s":0}', "lease_s"),
    ("/v1/claims", b'{"owner":"w","kinds":[]}', "kinds"),
    ("/v1/results", b'{"owner":"w","results":[{"outcome":"lost"}]}', "results[0]"),
    ("/v1/results", b'{"owner":"w","results":[{}]}', "results[0]"),
    ("/v1/results", LOST_RESULT, "results[0].output"),
    ("/v1/heartbeats", b'{"owner":"w","leases":[{"plan_id":"p"}]}', "leases[0]"),
    ("/v1/plans/p/pause", b'{"reason":1}', "reason"),
    ("/v1/plans/p/pause", b'{"why":"x"}', "why"),
    ("/v1/plans/p/cancel", b'{"reason":"' + b"r" * 1001 + b'"}', "reason"),
]


@pytest.mark.parametrize(("path", "body", "place"), BODIES)
async def test_a_body_that_does_not_fit_is_refused_with_its_place(
    path: str, body: bytes, place: str
) -> None:
    core = FakeCore()
    async with AsyncTestClient(core.app()) as client:
        answer = await client.post(path, content=body, headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert place in answer.json()["detail"]
    assert core.asked == []


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("/v1/plans?limit=0", "limit"),
        ("/v1/plans?limit=201", "limit"),
        ("/v1/plans?limit=ten", "limit"),
        ("/v1/plans?limit=", "limit"),
        ("/v1/plans?limit=1&limit=2", "limit"),
        ("/v1/plans?status=DONE", "status"),
        ("/v1/plans?statsu=READY", "statsu"),
        ("/v1/plans?min_sequence=-1", "min_sequence"),
        ("/v1/plans?min_sequence=99999999999999999999", "min_sequence"),
        ("/v1/plans?label=%ff", "query"),
        ("/v1/plans/p?limit=1", "limit"),
        ("/v1/tasks?kind=a%00b", "kind"),
        ("/v1/tasks?plan_id=a.b", "plan_id"),
        ("/v1/executions?status=RUNNING", "status"),
        ("/v1/audit?event=No", "event"),
        ("/v1/plans?" + "&".join(f"a{n}=1" for n in range(60)), "query"),
    ],
)
async def test_a_query_that_does_not_fit_is_refused_with_its_place(url: str, place: str) -> None:
    core = FakeCore()
    async with AsyncTestClient(core.app()) as client:
        answer = await client.get(url)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert place in answer.json()["detail"]
    assert core.asked == []


async def test_a_command_takes_no_query() -> None:
    async with AsyncTestClient(FakeCore().app()) as client:
        answer = await client.post(f"{START}?owner=w1", json={"owner": "w1", "attempt": 1})
    assert answer.status_code == 400


@pytest.mark.parametrize("id_", ["a.b", "a%20b", "a*", "%C3%A9", "a%0A", "x" * 65, "%00"])
async def test_an_id_that_cannot_exist_is_not_found(id_: str) -> None:
    core = FakeCore()
    async with AsyncTestClient(core.app()) as client:
        read = await client.get(f"/v1/plans/{id_}")
        wrote = await client.post(f"/v1/plans/p/tasks/{id_}/start", json={})
    assert (read.status_code, wrote.status_code) == (404, 404)
    assert read.json()["code"] == "not_found"
    assert core.asked == []


@pytest.mark.parametrize(
    "media_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx"]
)
async def test_json_must_be_called_json(media_type: str | None) -> None:
    headers = {"content-type": media_type} if media_type else {}
    async with AsyncTestClient(FakeCore().app()) as client:
        answer = await client.post(START, content=b'{"owner":"w","attempt":1}', headers=headers)
    assert answer.status_code == 400
    assert "Content-Type" in answer.json()["detail"]


async def test_json_may_name_its_charset() -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    async with AsyncTestClient(FakeCore().app()) as client:
        answer = await client.post(START, content=b'{"owner":"w","attempt":1}', headers=headers)
    assert answer.status_code == 200


async def test_a_page_of_another_site_may_not_ask() -> None:
    async with AsyncTestClient(FakeCore().app()) as client:
        answer = await client.post("/v1/plans/p/cancel", headers={"sec-fetch-site": "cross-site"})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


# -- sizes ------------------------------------------------------------------------------------


def body_of(size: int) -> bytes:
    frame = b'{"owner":"w","attempt":1,"output":""}'
    return frame[:-2] + b"x" * (size - len(frame)) + frame[-2:]


def in_chunks(body: bytes) -> list[bytes]:
    return [body[start : start + 65_536] for start in range(0, len(body), 65_536)]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("size", "status"), [(MAX_BODY_BYTES, 200), (MAX_BODY_BYTES + 1, 413)])
async def test_a_body_may_have_one_mebibyte_and_no_byte_more(
    size: int, status: int, *, chunked: bool
) -> None:
    body = body_of(size)
    assert len(body) == size
    core = FakeCore(ACCEPTED)
    caller = Caller(core, COMPLETE, *(in_chunks(body) if chunked else [body]))
    await asyncio.wait_for(caller.running, 10)
    assert caller.status == status
    assert len(core.asked) == (status == 200)
    assert status == 200 or b'"too_large"' in caller.body


async def test_a_length_announced_over_the_limit_is_refused_unread() -> None:
    announced = (b"content-length", b"%d" % (MAX_BODY_BYTES + 1))
    caller = Caller(FakeCore(), COMPLETE, headers=[announced])
    await asyncio.wait_for(caller.running, 20)
    assert caller.status == 413


async def test_a_body_that_never_arrives_whole_asks_nothing() -> None:
    core = FakeCore()
    caller = Caller(core, COMPLETE, b'{"owner":', b'"w"', ends=False)
    caller.hang_up()
    await asyncio.wait_for(caller.running, 20)
    assert core.asked == []


async def test_a_plan_may_have_ten_thousand_tasks_and_no_task_more() -> None:
    task = '{"id":"%s","kind":"k"}'
    core = FakeCore(SUBMITTED)
    async with AsyncTestClient(core.app()) as client:
        for count, status in ((10_000, 201), (10_001, 400)):
            tasks = ",".join(task % n for n in range(count))
            answer = await client.post(PLANS, content=f'{{"tasks":[{tasks}]}}', headers=JSON)
            assert answer.status_code == status


async def test_the_deepest_input_allowed_arrives() -> None:
    core = FakeCore()
    async with AsyncTestClient(core.app()) as client:
        answer = await client.post(COMPLETE, content=nested(MAX_DEPTH - 1), headers=JSON)
    assert answer.status_code == 200


async def test_brackets_in_strings_are_no_depth() -> None:
    body = b'{"owner":"w","attempt":1,"output":"%b\\"["}' % (b"[" * 500)
    async with AsyncTestClient(FakeCore().app()) as client:
        answer = await client.post(COMPLETE, content=body, headers=JSON)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b'{"owner":"w","attempt":1,"attempt":1}', "'attempt' stands twice"),
        (b'{"owner":"w","attempt":1,"output":{"a":1,"a":1}}', "'a' stands twice"),
        (b'{"owner":"w","attempt":1,"output":[{"b":{"\\u0061":1,"a":2}}]}', "'a' stands twice"),
        (b'{"owner":"w","attempt":1,"output":{"x:y":1,"x:y":2}}', "'x:y' stands twice"),
    ],
)
async def test_a_key_that_stands_twice_in_one_object_is_refused(body: bytes, named: str) -> None:
    core = FakeCore()
    async with AsyncTestClient(core.app()) as client:
        answer = await client.post(COMPLETE, content=body, headers=JSON)
    assert (answer.status_code, core.asked) == (400, [])
    assert named in answer.json()["detail"]


@pytest.mark.parametrize(
    "output", [b'[{"a":1},{"a":2}]', b'{"a":{"a":":"}}', b'{"\\"a":1,"a":":\\\\"}', b'"\\":"']
)
async def test_the_same_key_in_two_objects_is_none_twice(output: bytes) -> None:
    body = b'{"owner":"w","attempt":1,"output":%b}' % output
    async with AsyncTestClient(FakeCore().app()) as client:
        answer = await client.post(COMPLETE, content=body, headers=JSON)
    assert answer.status_code == 200, answer.text


MEGABYTE = 1_000_000
AWKWARD = {
    "brackets": b"[" * MEGABYTE,
    "pairs": b"[]" * (MEGABYTE // 2),
    "uneven": b"[[][[][[]" * (MEGABYTE // 9),
    "deep, again and again": (b"[" * 99 + b"]" * 99) * (MEGABYTE // 198),
    "quotes": b'"' * MEGABYTE,
    "a string without end": b'"' + b'\\"' * (MEGABYTE // 2),
}


@pytest.mark.parametrize("output", AWKWARD.values(), ids=AWKWARD)
async def test_no_body_takes_long_to_be_refused(output: bytes) -> None:
    async with AsyncTestClient(FakeCore().app()) as client:
        began = time.process_time()
        body = b'{"owner":"w","attempt":1,"output":' + output
        answer = await client.post(COMPLETE, content=body, headers=JSON)
        assert time.process_time() - began < 1
    assert answer.status_code == 400


@given(strategies.recursive(
    strategies.sampled_from(["[", "]}", '"', "\\\\", '\\"', None, 1]),
    lambda inner: strategies.lists(inner, max_size=3)
    | strategies.dictionaries(strategies.sampled_from(["k", "[", '"{']), inner, max_size=2),
))  # fmt: skip
def test_the_depth_of_a_body_is_counted_without_reading_it(value: object) -> None:
    body = json.dumps(value).encode()
    for levels in (1, 2, 6, 9):
        assert deeper_than(body, levels) == (depth(value) > levels)


def depth(value: object) -> int:
    if not isinstance(value, list | dict):
        return 0
    return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)


@pytest.mark.parametrize(
    ("error_type", "recorded"),
    [("timeout", "timeout"), ("an odd one!", "other"), ("", "other"), ("x" * 5_000, "other")],
)
async def test_a_failure_report_is_shortened_but_never_refused(
    error_type: str, recorded: str
) -> None:
    core = FakeCore()
    body = {"owner": "w", "attempt": 1, "error_type": error_type, "error_message": "m" * 500_000}
    async with AsyncTestClient(core.app()) as client:
        answer = await client.post("/v1/plans/p/tasks/t/fail", json=body)
    assert answer.status_code == 200
    ((command, _),) = core.asked
    assert command.error_type == recorded
    assert len(command.error_message) == 10_000
    assert command.error_message.endswith("…")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{}", "body: the field `owner` is missing"),
        (b'{"owner":"w","attempt":1,"atempt":1}', "body: there is no field `atempt`"),
        (b'{"owner":"w","attempt":0}', "attempt: it must be at least 1"),
        (b'{"owner":"w","attempt":"1"}', "attempt: it must be a whole number, not text"),
        (
            b'{"owner":"a b","attempt":1}',
            "owner: it must be 1 to 128 letters, digits or . : @ / - _",
        ),
        (b"[]", "body: it must be an object, not a list"),
    ],
)
async def test_a_body_that_does_not_fit_gets_a_plain_message(body: bytes, said: str) -> None:
    async with AsyncTestClient(FakeCore().app()) as client:
        answer = await client.post(START, content=body, headers=JSON)
    assert answer.json()["detail"] == said


async def test_a_query_that_does_not_fit_gets_a_plain_message() -> None:
    async with AsyncTestClient(FakeCore().app()) as client:
        details = [
            (await client.get(f"/v1/plans?{query}")).json()["detail"]
            for query in ("limit=0", "limit=ten", "statsu=READY", "after=" + "a" * 65)
        ]
    allowed = (
        "after, error_type, kind, label, limit, min_sequence, status, submitted_from, "
        "submitted_to, text"
    )
    assert details == [
        "limit: it must be at least 1",
        "limit: it must be a whole number, not text",
        "query: there is no parameter 'statsu' here; allowed: " + allowed,
        "after: it must have at most 64 characters",
    ]
