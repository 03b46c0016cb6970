"""A worker as a program of its own, for tests that stop, freeze or end it.

    python -m tests.integration.kit_worker URL NAME LEASE_S

Its handlers write one line per event to standard output; the last line has the worker's counters.
"""

import asyncio
import secrets
import sys
import time

import msgspec

from holdfast_worker import AsyncTask, Limits, Task, TaskCancelled, Worker

LIMITS = Limits(wait_s=2, grace_s=1, drain_s=1, request_s=2, longest_pause_s=0.5)


def say(*words: object) -> None:
    """One line in one write: handlers run on several threads."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def waits(task: Task) -> str:
    """Runs for ``seconds`` unless it is stopped."""
    say("began", task.task_id, task.attempt)
    if task.cancelled.wait(task.input["seconds"]):
        say("stopped", task.task_id, task.attempt, task.cancelled.reason)
        task.raise_if_cancelled()
    return f"attempt {task.attempt}"


def notes(task: Task) -> list[str]:
    """Makes ``steps`` notes of ``step_s`` each; every note is a value that is never made twice."""

    def note(number: int) -> str:
        value = secrets.token_hex(4)
        say("ran", task.task_id, task.attempt, number, value)
        task.cancelled.wait(task.input["step_s"])
        task.raise_if_cancelled()
        return value

    made: list[str] = []
    try:
        for number in range(task.input["steps"]):
            made.append(task.step(f"note-{number}", note, number))
            say("kept", task.task_id, task.attempt, number, made[-1])
    except TaskCancelled:  # while a note is made, or while it is being kept
        say("stopped", task.task_id, task.attempt, time.time())
        raise
    return made


async def asks_a_model(task: AsyncTask) -> list[str]:
    """An agent: one model call per step; every answer is kept."""
    import httpx  # noqa: PLC0415 - the agent's own client

    said: list[str] = []
    async with httpx.AsyncClient(base_url=task.input["model_url"]) as model:

        async def ask(number: int) -> str:
            messages = [{"role": "user", "content": f"{number}: {said}"}]
            answer = await model.post("/chat/completions", json={"messages": messages})
            answer.raise_for_status()
            await asyncio.sleep(0.02)
            return str(answer.json()["choices"][0]["message"]["content"])

        for number in range(task.input["calls"]):
            said.append(await task.step(f"call-{number}", ask, number))
            say("call", number)
    return said


def main(url: str, name: str, lease_s: str) -> None:
    worker = Worker(name, slots=4, url=url, limits=LIMITS)
    worker.task("waits", lease_s=float(lease_s))(waits)
    worker.task("notes", lease_s=float(lease_s))(notes)
    worker.task("asks_a_model", lease_s=float(lease_s))(asks_a_model)
    worker.run()
    say("counters", msgspec.json.encode(worker.counters).decode(), time.monotonic())


if __name__ == "__main__":
    main(*sys.argv[1:4])
