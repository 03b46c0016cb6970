"""Calls to the instances over HTTP; each is recorded with its times and its answer."""

import time
from collections.abc import Mapping
from typing import Any

import httpx

from tests.cluster.record import NO_ANSWER, Call, Json

WRITE_S = 15.0  # within which every write is answered, also through an election
READ_S = 8.0  # `min_sequence` waits for at most 5 s (API.md)
PATIENCE_S = 15.0  # by how much the caller waits longer, to see how late an answer is
SECRET = "secret-of-the-test-0123456789"  # noqa: S105 - it must never stand in any output
PROBLEM = "application/problem+json"
ERROR = 400


class Caller:
    """Speaks to all instances; ``addresses`` are their URLs by number."""

    def __init__(self, addresses: Mapping[int, str], calls: list[Call]) -> None:
        self._calls = calls
        headers = {"Authorization": f"Bearer {SECRET}"}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        self._clients = {
            number: httpx.AsyncClient(base_url=address, headers=headers, limits=limits)
            for number, address in addresses.items()
        }

    async def close(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            await client.aclose()

    async def submit(self, instance: int, plan: Json) -> tuple[Call, Json]:
        """Submit a plan that has an id."""
        return await self._ask(
            instance, "POST", "/v1/plans", plan, verb="submit", plan_id=plan["id"]
        )

    async def operate(self, instance: int, verb: str, plan_id: str) -> tuple[Call, Json]:
        """Pause, resume or cancel a plan."""
        path = f"/v1/plans/{plan_id}/{verb}"
        return await self._ask(instance, "POST", path, {}, verb=verb, plan_id=plan_id)

    async def retry(self, instance: int, plan_id: str, task_id: str) -> tuple[Call, Json]:
        """Give a failed task fresh budgets."""
        path = f"/v1/plans/{plan_id}/tasks/{task_id}/retry"
        return await self._ask(
            instance, "POST", path, {}, verb="retry", plan_id=plan_id, task_id=task_id
        )

    async def claim(self, instance: int, owner: str, **wish: Any) -> tuple[Call, list[Json]]:
        """Ask for work; the claims are in the answer, and each is recorded as a call of its own."""
        body = {"owner": owner, **wish}
        limit_s = WRITE_S + wish.get("wait_s", 0)
        call, answer = await self._ask(
            instance, "POST", "/v1/claims", body, verb="ask", owner=owner, limit_s=limit_s
        )
        claims: list[Json] = answer.get("claims", [])
        for claim in claims:
            named = {key: claim[key] for key in ("plan_id", "task_id", "attempt")}
            self._calls.append(
                Call(
                    instance=instance,
                    verb="claim",
                    owner=owner,
                    asked_at=call.asked_at,
                    answered_at=call.answered_at,
                    limit_s=limit_s,
                    status=call.status,
                    said="accepted",
                    sequence=claim["fencing_token"],
                    **named,
                )
            )
        return call, claims

    async def own(self, instance: int, verb: str, claim: Json, owner: str, **said: Any) -> Call:
        """One write of a lease's owner: start, heartbeat, complete, fail, release."""
        plan_id, task_id, attempt = (claim[key] for key in ("plan_id", "task_id", "attempt"))
        path = f"/v1/plans/{plan_id}/tasks/{task_id}/{verb}"
        body = {"owner": owner, "attempt": attempt, **said}
        named = {"plan_id": plan_id, "task_id": task_id, "owner": owner, "attempt": attempt}
        call, _ = await self._ask(instance, "POST", path, body, verb=verb, **named)
        return call

    async def read(self, instance: int, plan_id: str, min_sequence: int) -> Call:
        """A plan, at least as it was at a sequence."""
        path = f"/v1/plans/{plan_id}?min_sequence={min_sequence}"
        call, _ = await self._ask(
            instance, "GET", path, None, verb="read", limit_s=READ_S, plan_id=plan_id
        )
        return call

    async def _ask(
        self,
        instance: int,
        method: str,
        path: str,
        body: Json | None,
        *,
        verb: str,
        limit_s: float = WRITE_S,
        **named: Any,
    ) -> tuple[Call, Json]:
        asked_at = time.time()
        status, hung, is_problem = NO_ANSWER, False, True
        answer: Json = {}
        try:
            reply = await self._clients[instance].request(
                method, path, json=body, timeout=limit_s + PATIENCE_S
            )
        except httpx.ReadTimeout:
            hung = True
        except httpx.TransportError:
            pass
        else:
            status = reply.status_code
            is_problem = reply.headers.get("Content-Type", "").startswith(PROBLEM)
            answer = reply.json() if is_problem or status < ERROR else {"detail": reply.text[:200]}
        call = Call(
            instance=instance,
            verb=verb,
            asked_at=asked_at,
            answered_at=time.time(),
            limit_s=limit_s,
            status=status,
            hung=hung,
            is_problem=is_problem,
            code=answer.get("code", ""),
            said=_text(answer.get("status")),
            sequence=answer.get("sequence") or 0,
            detail=str(answer.get("detail", ""))[:200] if status >= ERROR else "",
            **named,
        )
        self._calls.append(call)
        return call, answer


def _text(value: object) -> str:
    """A problem's "status" is a number; a plan's and a write's are words."""
    return value if isinstance(value, str) else ""
