"""Three drafts at the same time, one text made of them, and a critic that may send it back.

``python -m examples.fan_out_critic``
"""

import asyncio
from typing import Any

from examples.model import chat, check_model, why_failed
from holdfast_worker import AsyncTask, Client, Worker

worker = Worker("writers", slots=8)


def plan(subject: str) -> dict[str, Any]:
    """Drafts → text → check: the verdict of the critic sends ``text`` back, or lets it pass."""
    styles = ("plain", "funny", "formal")
    drafts = [
        {"id": style, "kind": "draft", "input": {"subject": subject, "style": style}}
        for style in styles
    ]
    text = {"id": "text", "kind": "merge", "depends_on": list(styles)}
    check = {"id": "check", "kind": "judge", "type": "critic", "depends_on": ["text"]}
    return {"name": subject, "tasks": [*drafts, text, check]}


async def say(task: AsyncTask, prompt: str) -> str:
    return (await chat(task, [{"role": "user", "content": prompt}]))["content"]


@worker.task("draft", lease_s=30)
async def draft(task: AsyncTask, wish: dict[str, str]) -> str:
    return await say(task, f"Write about {wish['subject']}, {wish['style']}.")


@worker.task("merge", lease_s=30)
async def merge(task: AsyncTask) -> str:
    drafts = "\n\n".join(task.dependencies.values())
    wish = f"A reader said: {task.feedback}. Mend that.\n\n" if task.feedback else ""
    return await say(task, f"{wish}Make one text of these:\n\n{drafts}")


@worker.task("judge", lease_s=30)
async def judge(task: AsyncTask) -> dict[str, Any]:
    (text,) = task.dependencies.values()
    verdict = await say(task, f"Answer PASS, or what is wrong with this text:\n\n{text}")
    return {"pass": verdict.startswith("PASS"), "feedback": verdict}


async def write(subject: str) -> str:
    async with Client() as client:
        submitted = await client.submit(plan(subject))
        if (ended := await client.wait(submitted.plan_id)).status != "COMPLETED":
            return await why_failed(client, ended)
        return (await client.task(submitted.plan_id, "text")).output


if __name__ == "__main__":
    check_model()
    with worker:
        print(asyncio.run(write("lighthouses")))
