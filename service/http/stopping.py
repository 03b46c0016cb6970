"""Answers a request that is still under way when the instance stops: 503, not a plain-text 500.

The server cancels what has not ended within its grace period. A write that is cancelled may be
stored all the same, and the same request may safely be repeated on another instance.
"""

from contextlib import suppress

from litestar.types import Send

from service.http.problems import RequestRefused
from service.http.responses import send_refusal

DETAIL = "the instance is stopping; the same request may safely be repeated"


async def answer_cancelled(send: Send) -> None:
    """Answer a request that the server has cancelled, unless its answer has begun."""
    with suppress(RuntimeError):  # raised by the server when the answer has begun
        await send_refusal(RequestRefused("unavailable", DETAIL), send)
