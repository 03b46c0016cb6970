"""What of a plan changed after a sequence: exact, in pages, and with derived statuses."""

from pathlib import Path
from typing import Any

import httpx

from tests.integration.http_world import serving

Json = dict[str, Any]
PATH = "/v1/plans/p/tasks"


async def changes(client: httpx.AsyncClient, after: int, limit: int = 50) -> tuple[list[Json], int]:
    """All that changed, page by page, and from where to go on."""
    found: list[Json] = []
    params: Json = {"changed_after": after, "limit": limit}
    while True:
        answer = (await client.get(PATH, params=params)).raise_for_status().json()
        found += answer["items"]
        if answer["next"] is None:
            return found, answer["sequence"]
        params["after"] = answer["next"]


async def test_a_reader_of_changes_holds_what_the_plan_shows(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        tasks = [{"id": f"t{n}", "kind": "k", "depends_on": ["first"]} for n in range(25)]
        first = {"id": "first", "kind": "k"}
        last = {"id": "last", "kind": "k", "depends_on": ["t0"]}
        await client.post("/v1/plans", json={"id": "p", "tasks": [first, *tasks, last]})
        copy: dict[str, Json] = {}
        at, seen = 0, list[list[str]]()
        for step in range(5):
            changed, at = await changes(client, at, limit=10)
            seen.append([each["status"] for each in changed])
            copy |= {each["task_id"]: each for each in changed}
            whole = (await client.get("/v1/plans/p")).json()["tasks"]
            assert copy == {each["task_id"]: each for each in whole}
            assert await changes(client, at) == ([], at)
            body = {"owner": "w", "attempt": 1}
            if step == 0:
                assert len((await client.post("/v1/claims", json={"owner": "w"})).json()) == 1
            elif step == 1:
                await client.post(f"{PATH}/first/complete", json=body)
            elif step == 2:
                assert (await client.post(f"{PATH}/t0/claim", json={"owner": "w"})).is_success
            else:
                failed = body | {"error_type": "other", "retryable": False}
                await client.post(f"{PATH}/t0/fail", json=failed)
        assert seen[0] == ["READY", *["PENDING"] * 26]
        assert seen[1] == ["RUNNING"]
        assert sorted(seen[2]) == ["COMPLETED", *["READY"] * 25]
        assert seen[3] == ["RUNNING"]
        assert sorted(seen[4]) == ["FAILED", *["SKIPPED"] * 25]


async def test_changes_of_no_plan_and_strange_cursors_are_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        assert (await client.get(PATH)).status_code == 404
        for query in ("after=x", "changed_after=-1", "limit=0"):
            assert (await client.get(f"{PATH}?{query}")).status_code in (400, 404)
