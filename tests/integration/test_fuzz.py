"""A schema-driven fuzzer finds no 5xx, no undeclared answer, and no answer unlike its schema."""

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest
import schemathesis
from hypothesis.errors import Unsatisfiable
from schemathesis import checks as core_checks
from schemathesis.checks import load_all_checks
from schemathesis.core import NOT_SET
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks as openapi_checks

from tests.integration.http_world import serving
from tests.unit.http_world import FakeCore

load_all_checks()

Document = Any  # schemathesis is typed for its own plugin, which pytest 9 does not load
Case = Any

CHECKS = [
    core_checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]
EXAMPLES = 100 if os.environ.get("HOLDFAST_FAULTS") == "long" else 12
START_S = 30.0
STREAMS = {"GET /v1/events", "GET /v1/plans/{plan_id}/events"}  # they have no end to wait for
OPERATIONS = [
    f"{method.upper()} {path}"
    for path, item in (FakeCore().app().litestar.openapi_schema.paths or {}).items()
    for method in ("get", "post", "delete")
    if getattr(item, method)
]


class Served:
    """An instance on a loop of its own, for a fuzzer that knows no loops."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="served")
        self.url = ""

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with serving(self._folder) as (instance, client):
            self.url = instance.http_url
            for plan_id in ("a", "b"):
                tasks = [{"id": n, "kind": "outside"} for n in ("a", "b", "c")]
                await client.post("/v1/plans", json={"id": plan_id, "tasks": tasks})
            self._ready.set()
            await self._stop.wait()

    def start(self) -> str:
        self._thread.start()
        assert self._ready.wait(START_S)
        return self.url

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_S)
        assert not self._thread.is_alive()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    served = Served(tmp_path_factory.mktemp("fuzz"))
    with ExitStack() as stack:
        stack.callback(served.stop)
        yield served.start()


@pytest.fixture(scope="module")
def api(url: str) -> Document:
    return schemathesis.openapi.from_url(f"{url}/schema/openapi.json")


def test_the_document_is_a_valid_one(api: Document) -> None:
    api.validate()
    described = {result.ok().label for result in api.get_all_operations()}
    assert described == set(OPERATIONS) >= STREAMS


# Hypothesis sees that the dice were thrown while it made a case: by the instance beside it, whose
# daemons and heartbeats throw them at every tick.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("label", sorted(set(OPERATIONS) - STREAMS))
def test_every_answer_is_a_declared_one(
    api: Document, label: str, mode: GenerationMode, url: str
) -> None:
    method, path = label.split()
    operation = api[path][method]

    @hypothesis.settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[
            hypothesis.HealthCheck.filter_too_much,
            hypothesis.HealthCheck.too_slow,
        ],
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def fuzz(case: Case) -> None:
        _without_waiting(case)
        if (
            case.body is NOT_SET or not case.body
        ):  # OpenAPI cannot ask for the type of a body that is left out
            case.headers = {**(case.headers or {}), "Content-Type": "application/json"}
        seen.add(case.call_and_validate(base_url=url, checks=CHECKS, timeout=20).status_code)

    seen: set[int] = set()
    try:
        fuzz()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE  # nothing can be wrong with this route
        return
    assert mode is GenerationMode.NEGATIVE or seen - {400}, "no request that fits was ever made"


def _without_waiting(case: Case) -> None:
    """Waiting for what never comes is tested elsewhere; here it would only cost time."""
    for name in ("min_sequence", "at_sequence"):
        wanted = (case.query or {}).get(name)
        if isinstance(wanted, int) and wanted > 1:
            case.query[name] = 1
    if isinstance(case.body, dict) and isinstance(case.body.get("wait_s"), int | float):
        case.body["wait_s"] = min(case.body["wait_s"], 0)


def test_the_instance_is_still_well(url: str) -> None:
    assert httpx.get(f"{url}/readyz").json()["failing"] == []
