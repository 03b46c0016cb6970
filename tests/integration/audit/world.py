"""An instance with its audit trail, and what a worker, an operator and a vandal do to it."""

import asyncio
from typing import Any

import httpx

from service.app import Instance

Json = dict[str, Any]
Page = list[Json]
DONE_HERE = ("operator_action", "bad_event")
VISIBLE_S = 20.0  # it is a tenth of that on an idle machine


class World:
    """One instance and what a worker, an operator and a vandal do to it."""

    def __init__(self, instance: Instance, client: httpx.AsyncClient) -> None:
        self.instance = instance
        self.core = instance.core
        self.client = client

    async def submit(self, plan_id: str, *tasks: Json) -> None:
        body = {"id": plan_id, "tasks": tasks}
        (await self.client.post("/v1/plans", json=body)).raise_for_status()

    async def claim(self, kind: str, owner: str = "w", lease_s: float = 60, **more: Any) -> Json:
        wish = {"owner": owner, "kinds": [kind], "lease_s": lease_s, "wait_s": 10, **more}
        (claim,) = (await self.client.post("/v1/claims", json=wish)).json()["claims"]
        return claim

    async def say(self, word: str, claim: Json, owner: str = "w", **said: Any) -> httpx.Response:
        path = f"/v1/plans/{claim['plan_id']}/tasks/{claim['task_id']}/{word}"
        body = {"owner": owner, "attempt": claim["attempt"], **said}
        return await self.client.post(path, json=body, headers={"X-Trace-Id": "a" * 32})

    async def audit(self, **filters: Any) -> Page:
        answer = await self.client.get("/v1/audit", params={"limit": 200, **filters})
        return answer.raise_for_status().json()["items"]

    async def entry(self, event: str, **filters: Any) -> Json:
        """The newest entry of an event, as soon as it can be seen."""
        async with asyncio.timeout(VISIBLE_S):
            while not (found := await self.audit(event=event, **filters)):
                await asyncio.sleep(0.02)
        return found[0]

    async def told(self) -> Page:
        """The entries of what was done here; a busy machine may add some of its own."""
        return [each for each in await self.audit() if each["event"] in DONE_HERE]

    async def settled(self) -> None:
        """Wait until all entries so far are stored."""
        audit = self.core.audit
        async with asyncio.timeout(VISIBLE_S):
            while audit.waiting:
                await asyncio.sleep(0.02)
            head = (await self.instance_trail()).head
            while (await self.core.database.checkpoint("AUDIT") or ZERO).sequence < head:
                await asyncio.sleep(0.02)

    async def instance_trail(self) -> Any:
        return await self.core.log.trail.extent()  # type: ignore[attr-defined]


def bad_events(world: World) -> float:
    shown = world.core.metrics.shown("agent.projection.bad_event.total")
    assert shown is not None
    return sum(each.value or 0 for each in shown.values)


class _Zero:
    sequence = 0


ZERO = _Zero()


def task(id: str, kind: str, **more: Any) -> Json:
    return {"id": id, "kind": kind, **more}
