"""A long job that resumes after a crash: start it, kill it (kill -9), and start it again.

``step`` keeps what a call returned, so no call is paid for twice. ``checkpoint`` keeps a place in
a loop whose single rounds are too cheap for a step each. ``python -m examples.resume`` serves; its
task is a plan of your own: ``{"tasks": [{"id": "t", "kind": "book", "input": "rivers"}]}``.
"""

from examples.model import chat, check_model
from holdfast_worker import AsyncTask, Worker

CHAPTERS = 10
LINES = 2_000

worker = Worker("book")


@worker.task("book", lease_s=5)
async def book(task: AsyncTask, subject: str) -> dict[str, int]:
    chapters: list[str] = []
    for number in range(CHAPTERS):
        chapters.append(await task.step(f"chapter-{number}", write, task, subject, number))
        task.progress({"chapters": len(chapters)})
    lines = int(task.checkpoints.get("line", 0))
    while lines < LINES:
        lines += 100  # set a hundred lines
        await task.checkpoint("line", lines)
    return {"words": sum(len(each.split()) for each in chapters), "lines": lines}


async def write(task: AsyncTask, subject: str, number: int) -> str:
    prompt = f"Chapter {number} of a book about {subject}."
    return (await chat(task, [{"role": "user", "content": prompt}]))["content"]


if __name__ == "__main__":
    check_model()
    worker.run()
