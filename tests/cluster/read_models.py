"""Reads the read models of one instance over HTTP, page by page."""

from collections.abc import AsyncGenerator

import httpx

from tests.cluster.record import Json, Views

PAGE = 200
ANSWER_S = 30


async def views_of(instance: int, address: str, sequence: int) -> Views:
    """All plans, tasks and executions, at least as they were at ``sequence``."""
    views = Views(instance)
    async with httpx.AsyncClient(base_url=address, timeout=ANSWER_S) as client:
        async for plan in _rows(client, "plans", sequence):
            views.plans[plan["plan_id"]] = plan
        async for task in _rows(client, "tasks", sequence):
            views.tasks[task["plan_id"], task["task_id"]] = task
        async for each in _rows(client, "executions", sequence):
            views.executions[each["plan_id"], each["task_id"], each["attempt"]] = each
    return views


async def _rows(client: httpx.AsyncClient, name: str, sequence: int) -> AsyncGenerator[Json]:
    after: str | None = None
    while True:
        wish = {"limit": PAGE, "min_sequence": sequence} | ({"after": after} if after else {})
        answer = await client.get(f"/v1/{name}", params=wish)
        page: Json = answer.raise_for_status().json()
        for row in page["items"]:
            yield row
        after = page["next"]
        if not after:
            return
