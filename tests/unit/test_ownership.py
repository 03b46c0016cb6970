"""A token speaks for owners of its name and works on tasks of its kinds, in every verb."""

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from service.http.ownership import check_path
from service.http.problems import RequestRefused
from service.principals.tokens_file import read_tokens
from service.settings.config import AuthSettings, Settings
from streams.plan.state import Plan
from tests.unit.http_world import ACCEPTED, CLAIM, HOST, FakeCore
from tests.unit.tokens_world import bearer, give

OWNED = "/v1/plans/p/tasks/t"
ITEM = {"plan_id": "p", "task_id": "t", "attempt": 1}
VERBS: dict[str, dict[str, Any]] = {
    "/v1/claims": {},
    f"{OWNED}/start": {"attempt": 1},
    f"{OWNED}/heartbeat": {"attempt": 1},
    f"{OWNED}/progress": {"attempt": 1, "data": 1},
    f"{OWNED}/checkpoint": {"attempt": 1, "key": "k", "value": 1},
    f"{OWNED}/claim": {},
    f"{OWNED}/complete": {"attempt": 1},
    f"{OWNED}/fail": {"attempt": 1, "error_type": "x"},
    f"{OWNED}/release": {"attempt": 1},
    "/v1/heartbeats": {"leases": [ITEM]},
    "/v1/results": {"results": [ITEM | {"outcome": "completed"}]},
}


def core(tmp_path: Path, *, kinds: tuple[str, ...] = ()) -> tuple[FakeCore, dict[str, str]]:
    """A core whose task p/t has the kind `a`, and the header of a worker called `gpu`."""
    path = tmp_path / "tokens.toml"
    token = give(path, "gpu", "work", kinds=kinds)
    made = FakeCore(ACCEPTED, settings=Settings(auth=AuthSettings(tokens_file=path)))
    task = SimpleNamespace(spec=SimpleNamespace(kind="a"))
    made.plans["p"] = cast("Plan", SimpleNamespace(plan_id="p", tasks={"t": task}))
    return made, bearer(token)


@cache
def app_of(core: FakeCore) -> Any:
    """The core's application, made once: it is dear."""
    return core.app()


async def ask(core: FakeCore, headers: dict[str, str], path: str, owner: str, **more: Any) -> Any:
    answers = {"/v1/claims": [], f"{OWNED}/claim": CLAIM}
    core.answer = answers.get(path, ACCEPTED)
    transport = httpx.ASGITransport(app_of(core))
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as client:
        body = VERBS[path] | {"owner": owner} | more
        return await client.post(path, json=body, headers=headers)


@pytest.mark.parametrize("path", VERBS)
async def test_a_worker_speaks_for_its_own_owners_only(tmp_path: Path, path: str) -> None:
    world, headers = core(tmp_path)
    for owner in ("gpu", "gpu/host:1:ab", "gpu/"):
        assert (await ask(world, headers, path, owner)).status_code == 200, owner
        assert world.asked[-1][1].actor == owner
        assert world.asked[-1][1].principal == "gpu"
    world.asked.clear()
    for owner in ("cpu", "gpu2", "gpu:1", "GPU", "gp", "x/gpu", "host:1:ab"):
        refused = await ask(world, headers, path, owner)
        assert refused.status_code == 403, owner
        assert "begin with 'gpu/'" in refused.json()["detail"]
    assert not world.asked


@pytest.mark.parametrize("path", VERBS)
async def test_a_worker_works_on_its_kinds_only(tmp_path: Path, path: str) -> None:
    world, headers = core(tmp_path, kinds=("a", "b"))
    more = {"kinds": ["a"]} if path == "/v1/claims" else {}
    assert (await ask(world, headers, path, "gpu", **more)).status_code == 200
    world.asked.clear()
    (tmp_path / "tokens.toml").unlink()
    world, headers = core(tmp_path, kinds=("b", "c"))
    refused = await ask(world, headers, path, "gpu", **more)
    assert refused.status_code == 403
    assert "the kinds b, c only" in refused.json()["detail"]
    assert not world.asked


async def test_an_owner_in_a_path_is_the_workers_own(tmp_path: Path) -> None:
    world, _ = core(tmp_path)
    (principal,) = read_tokens(tmp_path / "tokens.toml")[0].values()
    await check_path(principal, {"owner": "gpu/1"}, world.load)
    with pytest.raises(RequestRefused, match="begin with 'gpu/'"):
        await check_path(principal, {"owner": "cpu"}, world.load)


async def test_the_kind_of_a_task_counts_whose_plan_this_instance_has_not_folded(
    tmp_path: Path,
) -> None:
    world, headers = core(tmp_path, kinds=("b",))
    world.elsewhere["p"] = world.plans.pop("p")
    assert (await ask(world, headers, f"{OWNED}/start", "gpu")).status_code == 403


async def test_a_claim_of_any_kind_is_one_of_the_tokens_kinds(tmp_path: Path) -> None:
    world, headers = core(tmp_path, kinds=("b", "a"))
    await ask(world, headers, "/v1/claims", "gpu")
    assert world.asked[-1][0].kinds == ("a", "b")
    world, headers = core(tmp_path)
    await ask(world, headers, "/v1/claims", "gpu")
    assert world.asked[-1][0].kinds is None


async def test_without_tokens_any_owner_may_be_named() -> None:
    world = FakeCore(ACCEPTED)
    assert (await ask(world, {}, f"{OWNED}/start", "anyone")).status_code == 200
    assert world.asked[-1][1].principal == ""
