"""Two widely used generators, at their defaults, make clients of the document that work."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.http_world import serving
from tests.programs import program

pytestmark = pytest.mark.timeout(240)

USE_PYTHON = """
import sys
from holdfast_client import Client
from holdfast_client.api.claims import claim_tasks
from holdfast_client.api.plans import get_plan, list_plans, pause_plan, submit_plan
from holdfast_client.models import ClaimBody, ListPlansStatus, PlanBody, Problem, TaskBody

with Client(base_url=sys.argv[1]) as client:
    plan = PlanBody(id="generated", tasks=[TaskBody(id="a", kind="outside")])
    assert submit_plan.sync(client=client, body=plan).created
    claims = claim_tasks.sync(client=client, body=ClaimBody(owner="w1", wait_s=5)).claims
    assert [claim.task_id for claim in claims] == ["a"]
    found = get_plan.sync("generated", client=client)
    assert found.tasks[0].status == "RUNNING"
    assert found.created_at.tzinfo is not None
    assert pause_plan.sync("generated", client=client).status == "PAUSED"
    assert len(list_plans.sync(client=client, status=ListPlansStatus.PAUSED, limit=5).items) == 1
    nothing = get_plan.sync("nothing", client=client)
    assert isinstance(nothing, Problem) and nothing.code == "not_found"
"""
USE_TYPESCRIPT = """
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

declare const process: { argv: string[] };

const client = createClient<paths>({ baseUrl: process.argv[2] });
const plan = { id: "generated", tasks: [{ id: "a", kind: "outside" }] };
const submitted = await client.POST("/v1/plans", { body: plan });
if (!submitted.data?.created) throw new Error("not created");
const page = await client.GET("/v1/tasks", { params: { query: { status: "READY", limit: 5 } } });
const task: components["schemas"]["TaskView"] | undefined = page.data?.items[0];
if (task?.task_id !== "a") throw new Error("not listed");
const paused = await client.POST("/v1/plans/{plan_id}/pause", {
  params: { path: { plan_id: "generated" } },
  body: { reason: "lunch" },
});
if (paused.data?.status !== "PAUSED") throw new Error("not paused");
const nothing = await client.GET("/v1/plans/{plan_id}", {
  params: { path: { plan_id: "nothing" } },
});
if (nothing.error?.code !== "not_found") throw new Error("no problem");
export function outputOf(event: components["schemas"]["StreamEvent"]): unknown {
  return event.type === "task.completed" ? event.data.output : undefined;
}
"""


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    async with serving(tmp_path / "served") as (instance, _):
        yield instance.http_url


async def run(folder: Path, *command: str) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{command[0]}: {done.stdout[-3_000:]}{done.stderr[-3_000:]}"


async def test_a_python_client_is_generated_and_works(url: str, tmp_path: Path) -> None:
    generator = Path(program("openapi-python-client"))
    document = f"{url}/schema/openapi.json"
    await run(tmp_path, str(generator), "generate", "--url", document)
    client = tmp_path / "holdfast-client"
    (client / "use.py").write_text(USE_PYTHON)
    await run(client, str(generator.parent / "python"), "use.py", url)


async def test_a_typescript_client_is_generated_and_works(url: str, tmp_path: Path) -> None:
    generator, compiler = program("openapi-typescript"), program("tsc")
    (tmp_path / "node_modules").symlink_to(Path(generator).parent.parent)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "use.ts").write_text(USE_TYPESCRIPT)
    await run(tmp_path, generator, f"{url}/schema/openapi.json", "-o", "schema.ts")
    strict = ("--strict", "--module", "nodenext", "--target", "es2022", "--skipLibCheck")
    await run(tmp_path, compiler, *strict, "--lib", "es2022,dom", "use.ts")
    await run(tmp_path, program("node"), "use.js", url)
