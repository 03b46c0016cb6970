"""The smallest worker: counts words. ``python -m examples.first_worker``"""

from holdfast_worker import Task, Worker

worker = Worker("first", slots=4)  # HOLDFAST_URL and HOLDFAST_TOKEN from the environment


@worker.task("count_words")
def count_words(task: Task, text: str) -> dict[str, int]:
    task.progress({"characters": len(text)})
    return {"words": len(text.split())}


if __name__ == "__main__":
    worker.run()
