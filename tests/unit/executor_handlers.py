"""Handlers for the executor's tests: they fail, dawdle, hang, break rules and die."""

import asyncio
import os
import signal
import threading
import time

from service.executor.handlers import Result, TaskFailed, TaskRun, handler
from streams.plan.events import TokenUsage, Verdict

let_go = threading.Event()  # what `stubborn` waits for, deaf to its cancellation
PATIENCE_S = 30.0
seen: dict[str, list[str]] = {}


def note(task: TaskRun, what: str) -> None:
    seen.setdefault(task.plan_id, []).append(what)


@handler("boom")
def boom(_: TaskRun) -> None:
    raise KeyError("the handler is broken")


@handler("system_exit")
def system_exit(_: TaskRun) -> None:
    raise SystemExit(3)


@handler("fails")
def fails(task: TaskRun) -> None:
    raise TaskFailed(**task.input)


@handler("no_json")
def no_json(_: TaskRun) -> object:
    return object()


@handler("endless_json")
def endless_json(_: TaskRun) -> object:
    endless: list[object] = []
    endless.append(endless)
    return endless


@handler("polite")
def polite(task: TaskRun) -> str:
    """Runs until it is cancelled."""
    note(task, "began")
    task.cancelled.wait(PATIENCE_S)
    note(task, f"stopped: {task.cancelled.reason}")
    task.raise_if_cancelled()
    return "nobody stopped me"


@handler("hooked")
def hooked(task: TaskRun) -> None:
    """Has itself called back when it is to stop, and dawdles and fails there."""
    name = threading.current_thread().name

    def stop() -> None:
        note(task, f"called back beside {name}: {threading.current_thread().name}")
        let_go.wait(PATIENCE_S)
        raise RuntimeError("the callback is broken")

    task.cancelled.on_cancel(stop)
    task.cancelled.on_cancel(lambda: note(task, "the next one, too"))
    task.cancelled.wait(PATIENCE_S)
    task.raise_if_cancelled()


@handler("late")
def late(task: TaskRun) -> str:
    """Finishes its work although it is cancelled."""
    task.cancelled.wait(PATIENCE_S)
    return "done all the same"


@handler("stubborn")
def stubborn(task: TaskRun) -> str:
    note(task, "began")
    let_go.wait(PATIENCE_S)
    note(task, "ended")
    return "too late"


@handler("async_polite")
async def async_polite(task: TaskRun) -> str:
    note(task, "began")
    try:
        await asyncio.sleep(PATIENCE_S)
    except asyncio.CancelledError:
        note(task, "stopped")
        raise
    return "nobody stopped me"


@handler("busy")
def busy(task: TaskRun) -> int:
    """Holds the interpreter as much as pure Python can."""
    until = time.monotonic() + task.input["seconds"]
    rounds = 0
    while time.monotonic() < until and not task.cancelled.is_set():
        rounds += sum(range(1000))
    return rounds


@handler("result")
def result(task: TaskRun) -> Result:
    verdict = Verdict(pass_=True) if task.input == "verdict" else None
    usage = TokenUsage(input_tokens=1, output_tokens=2, total_tokens=3)
    return Result("said", verdict=verdict, model_name="m1", token_usage=usage)


@handler("about")
def about(task: TaskRun) -> dict[str, object]:
    return {
        "key": task.idempotency_key,
        "attempt_key": task.attempt_key,
        "token": task.fencing_token,
        "attempt": task.attempt,
        "retry": task.retry,
        "feedback": task.feedback,
        "dependencies": task.dependencies,
        "context": task.context,
        "timeout_s": task.timeout_s,
    }


@handler("shows")
def shows(task: TaskRun) -> int:
    for number in range(500):
        task.progress({"number": number})
    task.cancelled.wait(task.input["seconds"])
    return 500


@handler("speaks")
def speaks(task: TaskRun) -> str:
    """Shows twenty words and ends with the last of them."""
    words = [f"w{number} " for number in range(20)]
    for word in words:
        task.progress(text=word)
        task.cancelled.wait(0.02)
    return "".join(words)


@handler("process_speaks", pool="process")
def process_speaks(task: TaskRun) -> object:
    return speaks(task)


@handler("spends")
def spends(task: TaskRun) -> None:
    """Runs until it is cancelled, and says what it has spent until then."""
    note(task, "began")
    task.cancelled.wait(PATIENCE_S)
    usage = TokenUsage(input_tokens=1, output_tokens=2, total_tokens=3, estimated=True)
    raise TaskFailed("cancelled", "stopped", model_name="m1", token_usage=usage)


@handler("judges")
def judges(task: TaskRun) -> object:
    return task.input


# -- in processes of their own ----------------------------------------------------------------


@handler("process_pid", pool="process")
def process_pid(task: TaskRun) -> int:
    task.progress({"half": True})
    return os.getpid()


@handler("process_killed", pool="process")
def process_killed(_: TaskRun) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@handler("process_polite", pool="process")
def process_polite(task: TaskRun) -> None:
    task.progress({"pid": os.getpid()})
    task.cancelled.wait(PATIENCE_S)
    task.raise_if_cancelled()


@handler("process_deaf", pool="process")
def process_deaf(task: TaskRun) -> None:
    task.progress({"pid": os.getpid()})
    time.sleep(PATIENCE_S)
