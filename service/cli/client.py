"""What commands share that ask a running instance: its address, and messages of errors."""

import contextlib
import sys
from typing import Any

import httpx
import msgspec

from service.runtime.terminal import on_one_line

OK = 0
FAILED = 1
USAGE = 2
UNREACHABLE = 3
INTERRUPTED = 130

CONNECT_S = 5.0
ANSWER_S = 30.0


class InstanceAddress(msgspec.Struct, frozen=True):
    """A running instance, a bearer token if it wants one, and how long to wait for an answer."""

    url: str
    token: str | None = None
    answer_s: float = ANSWER_S

    def connect(self) -> httpx.Client:
        """A client whose requests go there."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        timeout = httpx.Timeout(self.answer_s, connect=min(self.answer_s, CONNECT_S))
        return httpx.Client(base_url=self.url, headers=headers, timeout=timeout)


def complain(error: object, code: int) -> int:
    """One clear line on stderr; answers the exit code."""
    with contextlib.suppress(OSError):  # standard error is gone; the exit code remains
        print(f"holdfast: {on_one_line(str(error))}", file=sys.stderr)
    return code


def detail_of(answer: httpx.Response) -> str:
    """What a problem says in detail; empty for an answer that is no problem."""
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return ""


def complaint_of(answer: httpx.Response) -> str:
    """What an instance said against it."""
    try:
        problem: Any = answer.json()
        return f"{problem['code']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return f"the answer was {answer.status_code} {answer.reason_phrase}"
