"""The kind ``chat`` asks a language model at any OpenAI-compatible endpoint and streams its words.

Input: ``{"endpoint", "model", "messages", "params": {…}, "accept": [outcomes]}``. The settings say
where an endpoint is and which key it gets (`endpoints`); the key never stands in the log. Progress:
``{"offset", "text"}``, which joined is the output's ``content``, ``{"offset", "reasoning"}`` and
``{"offset", "refusal"}``. Output: ``{"content", "finish_reason", "model"}``, and where the model
gave them ``"tool_calls": [{"id", "name", "arguments"}]`` (arguments are the model's JSON text) and
``"refusal"``. What a critic sent back as feedback is added to the messages; a critic is also shown
the outputs it depends on and asked for a JSON verdict.
"""

import asyncio

import httpx
import msgspec

from holdfast_worker.failures import TaskFailed
from holdfast_worker.handler import AnyHandler
from holdfast_worker.task import Result, TaskRun
from service.executor.handlers.chat.answer import ModelAnswer
from service.executor.handlers.chat.endpoints import Endpoints
from service.executor.handlers.chat.errors import charged, refusal_of
from service.executor.handlers.chat.limits import LIMITS, ChatLimits
from service.executor.handlers.chat.outcome import result_of
from service.executor.handlers.chat.request import ChatInput, ChatQuestion, question_of
from service.executor.handlers.chat.stream import DONE, events_of
from service.executor.handlers.chat.telemetry import answer_attributes, request_attributes
from service.executor.handlers.inputs import CheckedHandler
from service.executor.handlers.web import client, error_body, outgoing_call, refuse_coded

__all__ = ["ChatInput", "answered", "chat_handler"]


def chat_handler(endpoints: Endpoints) -> AnyHandler:
    """The handler that asks ``endpoints``."""

    async def chat(task: TaskRun) -> Result:
        return await answered(task, endpoints)

    return CheckedHandler("chat", chat, ChatInput, endpoints.complaint)


async def answered(task: TaskRun, endpoints: Endpoints, limits: ChatLimits = LIMITS) -> Result:
    """What the model answers to ``task``; raises `TaskFailed`."""
    wish = msgspec.convert(task.input, ChatInput)
    place = endpoints.place(wish)
    question = question_of(task, wish, place.url, place.key)
    answer = ModelAnswer(task, wish)
    try:
        with outgoing_call(question.url, task.traceparent, f"chat {wish.model}") as attributes:
            attributes.update(request_attributes(question.url, wish))
            try:
                http = client(wish.read_timeout_s, place.reach)
                await _ask(http, question, answer, limits.after_finish_s)
                return await result_of(answer, task, wish, limits.check_s)
            finally:
                attributes.update(answer_attributes(answer))
    except asyncio.CancelledError:
        # Tokens that were used until now are paid for, so an attempt that is stopped names them.
        if not answer.began:
            raise
        message = f"the attempt was stopped: {task.cancelled.reason}"
        raise charged(TaskFailed("cancelled", message), answer.model, answer.usage) from None
    except TaskFailed as error:
        raise charged(error, answer.model, answer.usage) from error.__cause__


async def _ask(
    client: httpx.AsyncClient, question: ChatQuestion, answer: ModelAnswer, after_finish_s: float
) -> None:
    """Send the question and take in the answer, whether it is streamed or one JSON document."""
    async with (
        client as http,
        http.stream(
            "POST", question.url, content=question.body, headers=question.headers
        ) as response,
    ):
        if not response.is_success:
            raise refusal_of(response, await error_body(response))
        refuse_coded(response)
        answer.began = True
        try:
            await _take_in(response, answer, after_finish_s)
        except (httpx.TransportError, TimeoutError):
            if not answer.finished:
                raise


async def _take_in(response: httpx.Response, answer: ModelAnswer, after_finish_s: float) -> None:
    """Read to the end; after the model's last word for ``after_finish_s`` only."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as patience:
        async for data in events_of(response):
            if data.strip() == DONE:
                return
            answer.take(data)
            if answer.finished and patience.when() is None:
                patience.reschedule(loop.time() + after_finish_s)
