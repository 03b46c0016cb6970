"""What becomes of a whole answer: the task's result, or a failure that names the outcome."""

from holdfast_worker.failures import TaskFailed
from holdfast_worker.task import Result, TaskRun
from service.executor.handlers.chat.answer import ModelAnswer
from service.executor.handlers.chat.request import ChatInput
from service.executor.handlers.chat.schema import check_format
from service.executor.handlers.verdicts import verdict_in
from streams.plan.events import Verdict

QUOTED_CHARACTERS = 200


async def result_of(answer: ModelAnswer, task: TaskRun, wish: ChatInput, check_s: float) -> Result:
    """The result; raises `TaskFailed` for a cut answer, and one that the task does not accept."""
    if answer.finish_reason is None:
        raise TaskFailed("connection_error", "the stream ended before the answer did")
    outcome = outcome_of(answer)
    if outcome not in wish.accept:
        raise _not_accepted(outcome, answer)
    _check_tool_calls(outcome, answer)
    content = answer.text("text")
    verdict = None
    if outcome == "stop":
        await check_format(content, wish.params.get("response_format"), check_s)
    if task.type == "critic":
        verdict = _verdict(content)
    output: dict[str, object] = {
        "content": content,
        "finish_reason": answer.finish_reason,
        "model": answer.model,
    }
    if answer.tool_calls:
        output["tool_calls"] = answer.tool_calls
    if refusal := answer.text("refusal"):
        output["refusal"] = refusal
    return Result(output, verdict=verdict, model_name=answer.model, token_usage=answer.usage)


def outcome_of(answer: ModelAnswer) -> str:
    """The finish reason, or what it leaves unsaid: servers say "stop" of refusals and calls."""
    finish_reason = answer.finish_reason or ""
    if finish_reason != "stop":
        return finish_reason
    if answer.text("refusal"):
        return "refusal"
    return "tool_calls" if answer.tool_calls else finish_reason


def _not_accepted(outcome: str, answer: ModelAnswer) -> TaskFailed:
    """Not to be repeated: the answer came whole and is paid for, and the next would be alike."""
    words = answer.text("refusal") or answer.text("text")
    message = (
        f"the answer ended with {outcome[:64]!r}, which is not among the task's `accept`; "
        f"it begins {words[:QUOTED_CHARACTERS]!r}"
    )
    return TaskFailed("bad_response", message, retryable=False)


def _check_tool_calls(outcome: str, answer: ModelAnswer) -> None:
    if outcome == "tool_calls" and not answer.tool_calls:
        raise TaskFailed("bad_response", "the answer ended with 'tool_calls' and has none")
    if not all(call.name for call in answer.tool_calls):
        raise TaskFailed("bad_response", "the answer has a tool call without a name")


def _verdict(content: str) -> Verdict:
    """The first JSON object in the answer, which models like to wrap in prose or fences."""
    start, end = content.find("{"), content.rfind("}")
    verdict = verdict_in(content[start : end + 1])
    if verdict is None:
        quoted = content[:QUOTED_CHARACTERS]
        raise TaskFailed("bad_response", f"no verdict in the answer: {quoted!r}")
    return verdict
