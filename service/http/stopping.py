"""Answers a request that is still under way when the instance stops: 503, not a plain-text 500.

The server cancels what has not ended within its grace period. A write that is cancelled may be
stored all the same, and the same request may safely be repeated on another instance.
"""

from contextlib import suppress

import msgspec
from litestar.types import Send

from service.http.problems import PROBLEM_TYPE, RequestRefused, explained

DETAIL = "the instance is stopping; the same request may safely be repeated"


async def answer_cancelled(send: Send) -> None:
    """Answer a request that the server has cancelled, unless its answer has begun."""
    told = explained(RequestRefused("unavailable", DETAIL))
    body = msgspec.json.encode(told.problem)
    headers = [(name.lower().encode(), value.encode()) for name, value in told.headers.items()]
    headers.append((b"content-type", PROBLEM_TYPE.encode()))
    headers.append((b"content-length", b"%d" % len(body)))
    status = told.problem.status
    with suppress(RuntimeError):  # raised by the server when the answer has begun
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})
