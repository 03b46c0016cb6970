"""An agent that calls tools until it knows the answer.

Each model call and each tool call is a step: it runs once, and an attempt after a crash continues
behind the last one. ``python -m examples.agent_loop`` runs the worker, submits one question and
prints the answer; a worker that serves for ever calls ``worker.run()`` instead.
"""

import asyncio
import json

from examples.model import Message, chat, check_model, why_failed
from holdfast_worker import AsyncTask, Client, Fatal, Worker

MOST_TURNS = 20
SEARCH = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Look a subject up",
        "parameters": {"type": "object", "properties": {"subject": {"type": "string"}}},
    },
}

worker = Worker("agent", slots=8)


async def search(subject: str) -> str:
    return f"{subject}: the sea level rises by 4 mm per year"  # your tool here


@worker.task("agent", lease_s=30)
async def agent(task: AsyncTask, question: str) -> str:
    messages: list[Message] = [{"role": "user", "content": question}]
    for turn in range(MOST_TURNS):
        said = await task.step(f"turn-{turn}", chat, task, messages, tools=[SEARCH])
        messages.append(said)
        if not (calls := said.get("tool_calls")):
            task.progress(text=said["content"])
            return said["content"]
        for call in calls:
            arguments = json.loads(call["function"]["arguments"])
            found = await task.step(f"tool-{call['id']}", search, **arguments)
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": found})
    raise Fatal(f"no answer after {MOST_TURNS} turns")


async def ask(question: str) -> str:
    """What another program does: submit, wait, read the answer or why there is none."""
    async with Client() as client:
        task = {"id": "answer", "kind": "agent", "input": question, "timeout_s": 600}
        submitted = await client.submit({"name": question[:80], "tasks": [task]})
        if (ended := await client.wait(submitted.plan_id)).status != "COMPLETED":
            return await why_failed(client, ended)
        return (await client.task(submitted.plan_id, "answer")).output


if __name__ == "__main__":
    check_model()
    with worker:
        print(asyncio.run(ask("How fast does the sea level rise?")))
