"""A schema-driven fuzzer finds no 5xx, no undeclared answer, and no answer unlike its schema."""

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis.errors import Unsatisfiable
from litestar.routes import HTTPRoute

from tests.integration.http_world import serving
from tests.unit.http_world import FakeCore

EXAMPLES = 100 if os.environ.get("HOLDFAST_FAULTS") == "long" else 8
START_S = 30.0
STREAMS = {"GET /v1/events", "GET /v1/plans/{plan_id}/events"}  # they have no end to wait for
FILES = ("/page/", "/schema")  # not part of the document
OPERATIONS = sorted(
    f"{method} {route.path_format}"
    for route in FakeCore().app().litestar.routes
    if isinstance(route, HTTPRoute) and route.path != "/" and not route.path.startswith(FILES)
    for method in route.methods - {"OPTIONS"}
)


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
def fuzzing() -> Any:
    from tests.integration import fuzzing  # noqa: PLC0415 - here only, see there

    return fuzzing


@pytest.fixture(scope="module")
def document(fuzzing: Any, url: str) -> Any:
    return fuzzing.document_at(url)


def test_the_document_is_a_valid_one(fuzzing: Any, document: Any) -> None:
    document.validate()
    assert fuzzing.operations_of(document) == set(OPERATIONS) >= STREAMS


# Hypothesis sees that the dice were thrown while it made a case: by the instance beside it, whose
# daemons and heartbeats throw them at every tick.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", ["positive", "negative"])
@pytest.mark.parametrize("label", sorted(set(OPERATIONS) - STREAMS))
def test_every_answer_is_a_declared_one(
    fuzzing: Any, document: Any, label: str, mode: str, url: str
) -> None:
    try:
        seen = fuzzing.statuses_of(document, label, mode, url, EXAMPLES)
    except Unsatisfiable:
        assert mode == "negative"  # nothing can be wrong with this route
        return
    assert mode == "negative" or seen - {400}, "no request that fits was ever made"


def test_the_instance_is_still_well(url: str) -> None:
    assert httpx.get(f"{url}/readyz").json()["failing"] == []
