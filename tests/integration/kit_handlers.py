"""Handlers that run unchanged in the built-in executor and in a worker outside."""

import asyncio
import dataclasses
import time

import msgspec

from holdfast_worker import AsyncTask, Fatal, Result, Retry, Task, Worker, handler

worker = Worker("kit", slots=4)


class Question(msgspec.Struct):
    text: str
    times: int = 1


@dataclasses.dataclass
class Answer:
    words: list[str]
    key: str


@worker.task("kit_plain")
def plain(task: Task, question: Question) -> Answer:
    """Typed on both sides; shows its words as text and as JSON."""
    for word in question.text.split():
        task.progress(text=word + " ")
    task.progress({"half": True})
    task.token_usage("small", input=3, output=2, cached=1)
    task.token_usage("small", input=4, reasoning=1)
    return Answer(question.text.split() * question.times, task.idempotency_key)


@worker.task("kit_async")
async def asynchronous(task: AsyncTask, question: Question) -> dict[str, object]:
    """Fails once, and says when it is to run again."""
    if task.retry == 0:
        task.token_usage("small", input=1, output=1)
        raise Retry("the provider is busy", after_s=0.1, error_type="rate_limited")
    return {"text": question.text, "retry": task.retry, "context": task.context}


@worker.task("kit_fatal")
def fatal(_: Task) -> None:
    raise Fatal("this will never work", error_type="bad_input")


@worker.task("kit_no_json")
async def no_json(_: AsyncTask) -> object:
    return object()


@worker.task("kit_exits")
async def exits(_: AsyncTask) -> None:
    raise SystemExit(3)


@worker.task("kit_interrupts")
def interrupts(_: Task) -> None:
    raise KeyboardInterrupt


@worker.task("kit_spawns")
async def spawns(task: AsyncTask) -> None:
    await task.spawn([{"id": "more", "kind": "echo"}])


@worker.task("kit_times_out")
def times_out(task: Task) -> None:
    task.token_usage("small", input=5, output=5)
    task.cancelled.wait(20)
    task.raise_if_cancelled()


@worker.task("kit_times_out_async")
async def times_out_async(_: AsyncTask) -> None:
    await asyncio.sleep(20)


@worker.task("kit_judges")
def judges(task: Task) -> Result:
    passed = task.retry > 0 or len(task.dependencies) > 0
    return Result(verdict={"pass": passed, "feedback": "seen"}, model_name="judge")


@worker.task("kit_steps")
async def steps(task: AsyncTask) -> list[object]:
    """The values of steps come back typed, in the attempt that ran them as in a later one."""
    first = await task.step("first", question_of, "hello")
    second = await task.step("second", lambda: (1, 2))
    return [first.text, second, isinstance(first, Question)]


def question_of(text: str) -> Question:
    time.sleep(0.01)
    return Question(text)


@handler("kit_untyped")
def untyped(task: Task) -> object:
    """The older form, without a worker and without a type."""
    return task.input


worker.include(untyped)


@handler("kit_resumes")
async def resumes(task: AsyncTask) -> list[object]:
    """Keeps a step and a checkpoint, fails once, and finds both again."""
    before = task.checkpoints.get("place")
    task.token_usage("small", input=2)
    value = await task.step("once", lambda: task.attempt)
    task.token_usage("small", output=3)
    await task.checkpoint("place", {"attempt": task.attempt})
    task.token_usage("small", input=1)
    if task.retry == 0:
        raise Retry("once more", after_s=0.05)
    return [value, before]


@handler("kit_resumes_plain", pool="process")
def resumes_plain(task: Task) -> list[object]:
    """The same in a plain function, which the executor runs in a process of its own."""
    before = task.checkpoints.get("place")
    task.token_usage("small", input=2)
    value = task.step("once", lambda: task.attempt)
    task.token_usage("small", output=3)
    task.checkpoint("place", {"attempt": task.attempt})
    task.token_usage("small", input=1)
    if task.retry == 0:
        raise Retry("once more", after_s=0.05)
    return [value, before]


@handler("kit_keeps_too_much")
def keeps_too_much(task: Task) -> None:
    task.checkpoint("big", "x" * 70_000)
