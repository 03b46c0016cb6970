"""One trace id finds everything: from the request that submits to the last call to the outside."""

import asyncio
import io
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import msgspec
import nats
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from service.app import Instance
from service.signals.logs import configure
from streams.traceparent import of_attempt, span_id_of, trace_id_of
from tests.busy import stretch
from tests.integration.http_world import serving, until_status

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
OWN = "00-11111111111111111111111111111111-2222222222222222-01"
PATIENCE_S = 20.0


class OtherSide:
    """A real server: the receiver of `http` tasks, and a collector of OTLP over HTTP."""

    def __init__(self) -> None:
        self.calls: list[str | None] = []
        self.states: list[str | None] = []
        self.services: set[str] = set()
        self.spans: list[Any] = []
        outer = self

        class Answering(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/traces":
                    outer.collect(body)
                else:
                    outer.calls.append(self.headers["traceparent"])
                    outer.states.append(self.headers["tracestate"])
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *_: object) -> None:  # noqa: A002 - its name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def collect(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            attributes = {
                each.key: each.value.string_value for each in resource.resource.attributes
            }
            self.services.add(attributes["service.name"])
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def other_side(monkeypatch: pytest.MonkeyPatch) -> Iterator[OtherSide]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = OtherSide()
    yield server
    server.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[tuple[Instance, httpx.AsyncClient]]:
    handlers = ("tests.unit.executor_handlers",)
    async with serving(
        tmp_path, executor__handlers=handlers, executor__worker__processes=0
    ) as both:  # in this process, because a test reads its log
        yield both


def plan(plan_id: str, *tasks: Mapping[str, object]) -> dict[str, object]:
    return {"id": plan_id, "tasks": list(tasks)}


async def headers_in_the_log(url: str, plan_id: str) -> list[tuple[str, dict[str, str]]]:
    """Every message of a plan with its headers, read without Holdfast's own code."""
    connection = await nats.connect(url)
    try:
        stream = connection.jetstream()
        last = (await stream.stream_info("PLANS")).state.last_seq
        found = [await stream.get_msg("PLANS", sequence) for sequence in range(1, last + 1)]
    finally:
        await connection.close()
    wanted = f"plans.{plan_id}"
    return [
        (message.headers["Holdfast-Event"], message.headers)
        for message in found
        if message.headers and message.subject and message.subject.startswith(wanted)
    ]


async def events_of(client: httpx.AsyncClient, plan_id: str) -> list[dict[str, Any]]:
    answer = await client.get(f"/v1/plans/{plan_id}/events", timeout=PATIENCE_S)
    data = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    return [event for event in map(msgspec.json.decode, data) if "type" in event]


async def entry_of(client: httpx.AsyncClient, event: str) -> dict[str, Any]:
    """The newest entry of an audit event, as soon as it can be seen."""
    async with asyncio.timeout(PATIENCE_S):
        while not (found := (await client.get(f"/v1/audit?event={event}")).json()["items"]):
            await asyncio.sleep(0.02)
    return found[0]


async def test_one_id_finds_everything(
    world: tuple[Instance, httpx.AsyncClient], other_side: OtherSide
) -> None:
    instance, client = world
    lines = io.StringIO()
    handler = configure("test", stream=lines)
    call = {"id": "call", "kind": "http", "input": {"url": other_side.url}}
    boom = {"id": "boom", "kind": "boom", "max_retries": 0, "on_failure": "continue"}
    asked = plan("p", call, boom)
    submitted = await client.post("/v1/plans", json=asked, headers={"traceparent": PARENT})
    await until_status(client, "/v1/plans/p", "COMPLETED")

    assert submitted.headers["x-trace-id"] == TRACE
    assert (await client.get("/v1/plans/p")).json()["trace_id"] == TRACE
    task = (await client.get("/v1/plans/p/tasks/call")).json()
    assert task["trace_id"] == task["executions"][0]["trace_id"] == TRACE
    records = (await client.get("/v1/executions?plan_id=p")).json()["items"]
    assert [record["trace_id"] for record in records] == [TRACE, TRACE]
    failed = (await client.get("/v1/executions?error_type=handler_error")).json()["items"]
    assert [record["task_id"] for record in failed] == ["boom"]
    entry = await entry_of(client, "execution_failed")
    assert (entry["trace_id"], entry["task_id"]) == (TRACE, "boom")

    events = await events_of(client, "p")
    assert {event["trace_id"] for event in events} == {TRACE}
    assert {event["type"] for event in events} >= {
        "plan.submitted", "task.claimed", "task.completed", "task.failed", "plan.finished",
    }  # fmt: skip
    messages = await headers_in_the_log(instance.nats_url, "p")
    assert len(messages) == len(events)
    assert {trace_id_of(headers["traceparent"]) for _, headers in messages} == {TRACE}

    span = of_attempt(PARENT, "p", "call", 1)
    assert other_side.calls == [span], "the receiver gets the attempt's own span"
    of_call = [h["traceparent"] for _, h in messages if h["traceparent"] == span]
    assert len(of_call) == 2, "claimed and completed name the same span"
    handler.flush()
    said = [msgspec.json.decode(line) for line in lines.getvalue().splitlines()]
    (raised,) = [line for line in said if line["event"] == "handler_raised"]
    assert (raised["trace_id"], raised["task_id"], raised["attempt"]) == (TRACE, "boom", 1)


async def test_a_worker_joins_the_plans_trace_unless_it_brings_its_own(
    world: tuple[Instance, httpx.AsyncClient],
) -> None:
    instance, client = world
    tasks = [{"id": name, "kind": "outside"} for name in ("joins", "own")]
    await client.post("/v1/plans", json=plan("p", *tasks), headers={"traceparent": PARENT})
    for number, headers in enumerate(({}, {"traceparent": OWN})):
        wish = {"owner": f"w{number}", "kinds": ["outside"], "wait_s": 10}
        (claim,) = (await client.post("/v1/claims", json=wish, headers=headers)).json()["claims"]
        task_id = claim["task_id"]
        assert claim["traceparent"] == of_attempt(PARENT, "p", task_id, 1)
        who = {"owner": f"w{number}", "attempt": 1}
        path = f"/v1/plans/p/tasks/{task_id}"
        for word in ("start", "heartbeat", "complete"):
            answer = await client.post(f"{path}/{word}", json=who, headers=headers)
            assert answer.status_code == 200
        assert (await client.get(path)).json()["executions"][0]["trace_id"] == TRACE
    await until_status(client, "/v1/plans/p", "COMPLETED")
    messages = await headers_in_the_log(instance.nats_url, "p")
    traces: dict[str, set[str | None]] = {"w0": set(), "w1": set()}
    for _, headers in messages:
        actor = headers["Holdfast-Actor"]
        if actor in traces:
            traces[actor].add(headers["traceparent"])
    joined = {of_attempt(PARENT, "p", task["id"], 1) for task in tasks}
    assert len(traces["w0"]) == 1
    assert traces["w0"] < joined
    assert traces["w1"] == {OWN}


async def test_a_plans_trace_survives_a_restart(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        asked = plan("p", {"id": "t", "kind": "outside", "lease_s": 0.1})
        await client.post("/v1/plans", json=asked, headers={"traceparent": PARENT})
        wish = {"owner": "w", "kinds": ["outside"]}
        assert (await client.post("/v1/claims", json=wish)).json()["claims"]
    async with serving(tmp_path) as (_, client):
        wish = {"owner": "w2", "kinds": ["outside"], "wait_s": 10}
        (claim,) = (await client.post("/v1/claims", json=wish)).json()["claims"]
        assert claim["traceparent"] == of_attempt(PARENT, "p", "t", 2)
        first, second = (await client.get("/v1/plans/p/tasks/t")).json()["executions"]
        assert (first["status"], second["status"]) == ("lost", "running")
        assert first["trace_id"] == second["trace_id"] == TRACE


async def test_the_state_of_a_trace_goes_where_the_trace_goes(
    tmp_path: Path, other_side: OtherSide
) -> None:
    state = "vendor=abc,rojo=00f067aa0ba902b7"
    headers = {"traceparent": f"cc{PARENT[2:]}-from-the-future", "tracestate": state}
    call = {"id": "call", "kind": "http", "input": {"url": other_side.url}}
    async with serving(tmp_path) as (instance, client):
        later = {"id": "later", "kind": "outside", "depends_on": ["call"]}
        await client.post("/v1/plans", json=plan("p", call, later), headers=headers)
        await until_status(client, "/v1/plans/p/tasks/call", "COMPLETED")
        submitted = (await headers_in_the_log(instance.nats_url, "p"))[0][1]
        assert (submitted["traceparent"], submitted["tracestate"]) == (PARENT, state)
    assert other_side.calls == [of_attempt(PARENT, "p", "call", 1)]
    assert other_side.states == [state]
    async with serving(tmp_path) as (_, client):
        wish = {"owner": "w", "kinds": ["outside"], "wait_s": 10}
        (claim,) = (await client.post("/v1/claims", json=wish)).json()["claims"]
        assert claim["tracestate"] == state


async def test_two_traceparents_are_not_believed(
    world: tuple[Instance, httpx.AsyncClient],
) -> None:
    _, client = world
    headers = [("traceparent", PARENT), ("traceparent", OWN), ("tracestate", "a=1")]
    answer = await client.get("/v1/plans", headers=headers)
    assert answer.headers["x-trace-id"] not in (TRACE, trace_id_of(OWN))


async def test_a_plan_without_a_trace_begins_the_one_that_its_answer_names(
    world: tuple[Instance, httpx.AsyncClient],
) -> None:
    _, client = world
    answer = await client.post("/v1/plans", json=plan("p", {"id": "t", "kind": "echo"}))
    shown = (await client.get("/v1/plans/p")).json()
    assert shown["trace_id"] == answer.headers["x-trace-id"]


# -- error types of workers outside -----------------------------------------------------------


async def test_an_outside_workers_own_error_type_is_other_and_stays_readable(
    world: tuple[Instance, httpx.AsyncClient],
) -> None:
    _, client = world
    await client.post("/v1/plans", json=plan("p", {"id": "t", "kind": "outside"}))
    wish = {"owner": "w", "kinds": ["outside"], "wait_s": 10}
    await client.post("/v1/claims", json=wish)
    failed = {
        "owner": "w", "attempt": 1, "error_type": "out_of_fuel", "error_message": "empty",
        "retry_in_s": 600, "model_name": "m1", "token_usage": {"input_tokens": 3},
    }  # fmt: skip
    said = [await client.post("/v1/plans/p/tasks/t/fail", json=failed) for _ in range(2)]
    assert [answer.json()["status"] for answer in said] == ["accepted", "duplicate"]
    found = await client.get("/v1/executions?error_type=other&model_name=m1")
    (record,) = found.json()["items"]
    assert (record["status"], record["error_message"]) == ("failed", "out_of_fuel: empty")
    assert record["token_usage"]["input_tokens"] == 3
    assert record["duration_s"] >= 0


# -- spans ------------------------------------------------------------------------------------


async def test_spans_reach_a_collector_under_the_ids_that_facts_name(
    tmp_path: Path, other_side: OtherSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "billing-agents")
    flags = {
        "observability.otlp_endpoint": other_side.url,
        "executor.handlers": ("tests.unit.executor_handlers",),
    }
    async with serving(tmp_path, **flags) as (_, client):
        call = {"id": "call", "kind": "http", "input": {"url": other_side.url}}
        boom = {"id": "boom", "kind": "boom", "max_retries": 0, "on_failure": "continue"}
        asked = plan("p", call, boom)
        await client.post("/v1/plans", json=asked, headers={"traceparent": PARENT})
        unsampled = PARENT[:-2] + "00"
        quiet = plan("quiet", {"id": "t", "kind": "echo"})
        await client.post("/v1/plans", json=quiet, headers={"traceparent": unsampled})
        await until_status(client, "/v1/plans/p", "COMPLETED")
        await until_status(client, "/v1/plans/quiet", "COMPLETED")
    # Closing has sent what was left.
    assert other_side.services == {"billing-agents"}
    (request,) = other_side.named("POST /v1/plans")
    (submit,) = other_side.named("submit plan")
    (called,) = other_side.named("execute http")
    (failed,) = other_side.named("execute boom")
    (outgoing,) = other_side.named("POST")
    assert not other_side.named("execute echo"), "its trace is not sampled"
    everything = [request, submit, called, failed, outgoing]
    assert {span.trace_id.hex() for span in everything} == {TRACE}
    assert len({span.span_id for span in everything}) == len(everything)
    client_span = span_id_of(PARENT)
    parents = [span.parent_span_id.hex() for span in (request, submit, called, failed)]
    assert set(parents) == {client_span}
    assert called.span_id.hex() == span_id_of(of_attempt(PARENT, "p", "call", 1))
    assert outgoing.parent_span_id == called.span_id
    assert other_side.calls == [of_attempt(PARENT, "p", "call", 1)]
    told = {each.key: each.value.string_value for each in failed.attributes}
    assert told["error.type"] == "handler_error"
    assert (told["holdfast.task_id"], told["holdfast.result"]) == ("boom", "failed")
    assert failed.status.code == 2
    assert called.status.code == 0
    assert called.start_time_unix_nano <= outgoing.start_time_unix_nano
    assert outgoing.end_time_unix_nano <= called.end_time_unix_nano


async def test_a_collector_that_is_down_costs_a_warning_and_no_time(tmp_path: Path) -> None:
    lines = io.StringIO()
    handler = configure("test", stream=lines)
    loop = asyncio.get_running_loop()
    flags = {"observability.otlp_endpoint": "http://127.0.0.1:9"}
    async with serving(tmp_path, **flags) as (_, client):
        for number in range(20):
            asked = plan(f"p{number}", {"id": "t", "kind": "echo"})
            assert (await client.post("/v1/plans", json=asked)).status_code == 201
        await until_status(client, "/v1/plans/p19", "COMPLETED")
        ended_at = loop.time()
    assert loop.time() - ended_at < 15 * stretch()
    handler.flush()
    said = [msgspec.json.decode(line)["event"] for line in lines.getvalue().splitlines()]
    assert said.count("spans_not_exported") + said.count("last_spans_not_exported") >= 1
    assert said.count("spans_not_exported") <= 1, "once per outage"


WITHOUT = """
import asyncio, sys
from pathlib import Path
from tests.integration.http_world import serving

async def main():
    async with serving(Path(sys.argv[1])) as (_, client):
        plan = {"id": "p", "tasks": [{"id": "t", "kind": "echo"}]}
        assert (await client.post("/v1/plans", json=plan)).status_code == 201
    unwanted = {"service.signals.tracing.otlp", "opentelemetry.sdk", "google.protobuf"}
    print(sorted(set(sys.modules) & unwanted))

asyncio.run(main())
"""


def test_without_an_endpoint_opentelemetry_is_not_even_imported(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(tmp_path)],
        check=True, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    # Litestar looks for OpenTelemetry by itself; its words are not what costs anything.
    assert told.stdout.splitlines()[-1] == "[]"
