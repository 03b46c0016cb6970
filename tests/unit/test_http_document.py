"""The document of the HTTP API: it names every route and problem, and says what is enforced."""

import asyncio
import json
import re
import threading
from typing import Any

import httpx
import pytest
from litestar.testing import AsyncTestClient

from service.http import openapi
from streams.plan.events import TYPE_NAMES
from tests.unit.http_world import HOST, FakeCore

# -- the document -----------------------------------------------------------------------------


async def test_the_document_holds_every_route_and_every_problem() -> None:
    async with AsyncTestClient(FakeCore().app()) as client:
        document = (await client.get("/schema/openapi.json")).json()
    operations = [
        (path, method, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]
    assert (
        len({operation["operationId"] for _, _, operation in operations}) == len(operations) >= 28
    )
    for path, method, operation in operations:
        assert operation["tags"]
        assert operation["responses"]["400"]["content"].keys() == {"application/problem+json"}
        assert ("requestBody" in operation) == (method == "post")
        assert ("404" in operation["responses"]) == ("{" in path)
        assert operation.get("security", []) or path in {"/healthz", "/readyz", "/v1/session"}
    schemes = document["components"]["securitySchemes"]
    assert schemes["bearer"]["scheme"] == "bearer"
    assert (schemes["session"]["in"], schemes["session"]["name"]) == ("cookie", "holdfast_session")


async def test_the_document_is_made_once_and_not_on_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made_on: list[int] = []
    complete = openapi.complete_document
    app = FakeCore().own_app()

    def noting(described: Any, schemas: Any) -> None:
        made_on.append(threading.get_ident())
        complete(described, schemas)

    monkeypatch.setattr(openapi, "complete_document", noting)
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type] - on this loop
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as client:
        asked = (client.get("/schema/openapi.json") for _ in range(3))
        answers = await asyncio.gather(*asked)
    assert {answer.text for answer in answers} == {answers[0].text}
    assert answers[0].json()["paths"]
    assert len(made_on) == 1
    assert made_on[0] != threading.get_ident()


async def test_the_document_says_what_is_enforced() -> None:
    async with AsyncTestClient(FakeCore().app()) as client:
        schemas = (await client.get("/schema/openapi.json")).json()["components"]["schemas"]
    task = schemas["TaskBody"]
    assert task["additionalProperties"] is False
    assert task["required"] == ["id", "kind"]
    assert task["properties"]["id"]["pattern"] == "^[A-Za-z0-9_-]{1,64}$"
    assert task["properties"]["input"] == {}
    assert schemas["ClaimBody"]["properties"]["limit"]["maximum"] == 500
    for shown, name in (("PlanView", "created_at"), ("Claim", "lease_until"), ("Finding", "at")):
        if name in schemas[shown]["properties"]:
            assert schemas[shown]["properties"][name]["format"] == "date-time"
    assert schemas["StreamEvent"]["discriminator"]["mapping"].keys() == set(TYPE_NAMES.values())
    assert schemas["ClaimedEvent"]["properties"]["data"] == {"$ref": "#/components/schemas/Claimed"}


async def test_every_reference_of_the_document_leads_somewhere() -> None:
    async with AsyncTestClient(FakeCore().app()) as client:
        text = (await client.get("/schema/openapi.json")).text
    referred = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert referred <= json.loads(text)["components"]["schemas"].keys()
