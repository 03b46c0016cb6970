"""What of a plan changed after a sequence: exact, in pages, and with derived statuses."""

import random
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import PrivateServer
from tests.integration.http_world import serving
from tests.integration.kit_world import Link
from tests.waiting import answered

Json = dict[str, Any]
PATH = "/v1/plans/p/tasks"


async def changes(
    client: httpx.AsyncClient, after: int, limit: int = 50, min_sequence: int = 0
) -> tuple[list[Json], int]:
    """All that changed, page by page, and from where to go on."""
    found: list[Json] = []
    params: Json = {"changed_after": after, "limit": limit, "min_sequence": min_sequence}
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


async def test_an_instance_that_is_behind_answers_no_reader_from_its_past(
    tmp_path: Path, private_nats: PrivateServer
) -> None:
    with Link(private_nats.url) as link:
        late_url = link.url.replace("http", "nats")
        async with (
            serving(tmp_path / "a", nats__url=private_nats.url) as (_, quick),
            serving(tmp_path / "b", nats__url=late_url) as (_, late),
        ):
            tasks = [{"id": f"t{n}", "kind": "k"} for n in range(3)]
            await quick.post("/v1/plans", json={"id": "p", "tasks": tasks})
            assert len((await changes(late, 0))[0]) == 3
            link.order("cut")
            await quick.post("/v1/claims", json={"owner": "w", "limit": 3})
            first = await quick.get(PATH, params={"limit": 1})
            _, at = await changes(quick, 0)
            for named in ({"changed_after": at}, {"after": first.json()["next"]}):
                assert (await late.get(PATH, params=named)).status_code == 503
            link.order("open")

            async def is_there() -> bool:
                return (await late.get(PATH, params={"changed_after": at})).status_code != 503

            await answered(is_there, "the change is there")
            assert (await changes(late, at))[0] == []


WORDS = ("claim", "claim", "end", "end", "end", "beat", "pause", "resume", "resume", "retry")
THROWS = 3  # between two pages


class Dice:
    """Throws what workers and operators do with the plan `p`, at either of two instances."""

    def __init__(self, seed: int, clients: list[httpx.AsyncClient]) -> None:
        self.random = random.Random(seed)
        self.clients = clients
        self.held: list[Json] = []

    @property
    def client(self) -> httpx.AsyncClient:
        return self.random.choice(self.clients)

    async def throw(self) -> None:
        what = self.random.choice(WORDS)
        if what == "claim":
            body = {"owner": "w", "limit": 2, "start": True}
            self.held += (await self.client.post("/v1/claims", json=body)).json()["claims"]
        elif what in ("pause", "resume"):
            await self.client.post(f"/v1/plans/p/{what}")
        elif what == "retry":
            await self.client.post(f"{PATH}/t{self.random.randrange(12)}/retry")
        elif self.held:
            await self._report(what)

    async def _report(self, what: str) -> None:
        lease = self.random.choice(self.held)
        body: Json = {"owner": "w", "attempt": lease["attempt"]}
        if what == "beat":
            word = "heartbeat"
        else:
            self.held.remove(lease)
            word = self.random.choice(["complete", "complete", "fail", "fail", "release"])
        if word == "fail":
            body |= {"error_type": "other", "retryable": self.random.random() < 0.2}
        if word == "complete" and lease["type"] == "critic":
            body["verdict"] = {"pass": self.random.random() < 0.5, "feedback": "x"}
        await self.client.post(f"{PATH}/{lease['task_id']}/{word}", json=body)


def joined_tasks() -> list[Json]:
    """Chains, joins of three kinds, a critic, and failures that the plan survives."""
    tasks: list[Json] = [{"id": f"t{n}", "kind": "k", "lease_s": 600} for n in range(12)]
    for n in range(3, 11):
        tasks[n]["depends_on"] = [f"t{n - 3}", f"t{n - 2}"]
        tasks[n]["join"] = ("all", "any", "all")[n % 3]
    for task in tasks:
        task |= {"on_failure": "continue", "max_retries": 2}
    tasks[11] |= {"type": "critic", "target": "t0", "depends_on": ["t0"]}
    return tasks


async def test_a_reader_of_pages_misses_nothing_while_others_write_and_instances_change(
    tmp_path: Path, private_nats: PrivateServer
) -> None:
    """Reads at either instance, three tasks at a time, with writes between the pages."""
    async with AsyncExitStack() as stack:

        async def instance(name: str) -> httpx.AsyncClient:
            world = serving(tmp_path / name, nats__url=private_nats.url)
            return (await stack.enter_async_context(world))[1]

        clients = [await instance("a"), await instance("b")]
        dice = Dice(17, clients)
        await clients[0].post("/v1/plans", json={"id": "p", "tasks": joined_tasks()})
        copy: dict[str, Json] = {}
        seen: set[str] = set()
        at = 0
        for rounds in range(24):
            if rounds == 12:  # one that has folded the log anew takes the place of the second
                clients[1] = await instance("c")
            params: Json = {"changed_after": at, "limit": 3}
            while True:
                for _ in range(THROWS):
                    await dice.throw()
                page = (await dice.client.get(PATH, params=params)).raise_for_status().json()
                for task in page["items"]:
                    if known := copy.get(task["task_id"]):
                        assert known["sequence"] <= task["sequence"]
                    copy[task["task_id"]] = task
                    seen.add(task["status"])
                params["after"] = page["next"]
                if page["next"] is None:
                    break
            assert page["sequence"] >= at
            at = page["sequence"]
            plans = [(await client.get("/v1/plans/p")).json() for client in clients]
            written = max(plan["sequence"] for plan in plans)
            changed, now = await changes(dice.client, at, min_sequence=written)
            copy |= {each["task_id"]: each for each in changed}
            seen |= {each["status"] for each in changed}
            for client in clients:
                whole = await client.get("/v1/plans/p", params={"min_sequence": now})
                assert copy == {each["task_id"]: each for each in whole.json()["tasks"]}
    assert seen >= {"PENDING", "READY", "RUNNING", "COMPLETED"}, seen
    assert seen & {"FAILED", "SKIPPED"}, seen
