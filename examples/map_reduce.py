"""A summary of each document, all at the same time, and one of all summaries.

A document that cannot be read does not stop the others (``on_failure``: ``continue``).
``python -m examples.map_reduce``
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from examples.model import chat, check_model, why_failed
from holdfast_worker import AsyncTask, Client, Event, Fatal, Worker

worker = Worker("readers", slots=16)


def plan(documents: Mapping[str, str]) -> dict[str, Any]:
    """One task per document, and one that depends on all of them."""
    summaries = [
        {"id": name, "kind": "summarise", "input": text, "on_failure": "continue"}
        for name, text in documents.items()
    ]
    return {"tasks": [*summaries, {"id": "all", "kind": "combine", "depends_on": list(documents)}]}


async def say(task: AsyncTask, prompt: str) -> str:
    return (await chat(task, [{"role": "user", "content": prompt}]))["content"]


@worker.task("summarise", lease_s=30)
async def summarise(task: AsyncTask, text: str) -> str:
    if not text:
        raise Fatal("the document is empty", error_type="bad_input")
    return await say(task, f"Summarise:\n\n{text}")


@worker.task("combine", lease_s=30)
async def combine(task: AsyncTask) -> str:
    known = [text for text in task.dependencies.values() if text is not None]
    return await say(task, "Summarise these summaries:\n\n" + "\n\n".join(known))


async def read(documents: Mapping[str, str]) -> str:
    async with Client() as client:
        submitted = await client.submit(plan(documents))
        async for event in client.events(submitted.plan_id, types=["task.completed"]):
            if isinstance(event, Event):
                print("read", event.task_id)
        if (ended := await client.wait(submitted.plan_id)).status != "COMPLETED":
            return await why_failed(client, ended)
        return (await client.task(submitted.plan_id, "all")).output


if __name__ == "__main__":
    check_model()
    with worker:
        print(asyncio.run(read({"a": "The first text.", "b": "The second text."})))
