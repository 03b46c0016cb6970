"""One call to a model server that speaks the API of OpenAI: MODEL_URL, MODEL_NAME, MODEL_KEY."""

import os
import sys
from typing import Any

import httpx

from holdfast_worker import AsyncTask, Client, Fatal, PlanView, Retry
from holdfast_worker.failures import retry_after_s

Message = dict[str, Any]
NO_MODEL = (
    "set MODEL_URL to the address of a model server with the API of OpenAI, such as "
    "http://127.0.0.1:11434/v1, and MODEL_NAME and MODEL_KEY as it needs them"
)


def check_model() -> None:
    """End the program with a sentence when it is not known where the model answers."""
    if not os.environ.get("MODEL_URL"):
        sys.exit(NO_MODEL)


async def why_failed(client: Client, plan: PlanView) -> str:
    """In one sentence, for the task that failed."""
    failed = next((task.task_id for task in plan.tasks if task.status == "FAILED"), None)
    return (await client.why(plan.plan_id, failed)).answer


async def chat(task: AsyncTask, messages: list[Message], **more: Any) -> Message:
    """The model's next message; the tokens are counted for the task."""
    if not (url := os.environ.get("MODEL_URL")):
        raise Fatal(NO_MODEL, error_type="bad_input")
    name = os.environ.get("MODEL_NAME", "small")
    headers = {"Authorization": f"Bearer {os.environ.get('MODEL_KEY', 'none')}"}
    async with httpx.AsyncClient(timeout=120) as http:
        answer = await http.post(
            f"{url.rstrip('/')}/chat/completions",
            headers=headers,
            json={"model": name, "messages": messages, **more},
        )
    if answer.status_code in (429, 503):
        wait_s = retry_after_s(answer.headers.get("Retry-After"))
        raise Retry("the model is busy", after_s=wait_s, error_type="rate_limited")
    if answer.is_client_error:
        raise Fatal(answer.text[:500], error_type="bad_input")
    answer.raise_for_status()  # a 5xx: another attempt follows
    said = answer.json()
    usage = said.get("usage", {})
    task.token_usage(
        said.get("model", name),
        input=usage.get("prompt_tokens", 0),
        output=usage.get("completion_tokens", 0),
    )
    return said["choices"][0]["message"]
