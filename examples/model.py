"""One call to a model server that speaks the API of OpenAI: MODEL_URL, MODEL_NAME, MODEL_KEY."""

import os
from typing import Any

import httpx

from holdfast_worker import AsyncTask, Fatal, Retry
from holdfast_worker.failures import retry_after_s

Message = dict[str, Any]


async def chat(task: AsyncTask, messages: list[Message], **more: Any) -> Message:
    """The model's next message; the tokens are counted for the task."""
    name = os.environ.get("MODEL_NAME", "small")
    headers = {"Authorization": f"Bearer {os.environ.get('MODEL_KEY', 'none')}"}
    async with httpx.AsyncClient(timeout=120) as http:
        answer = await http.post(
            f"{os.environ['MODEL_URL']}/chat/completions",
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
