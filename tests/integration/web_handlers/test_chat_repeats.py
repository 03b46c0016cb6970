"""A model server that fails first and answers later costs as many attempts, and each says why."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.faults.service_process import ServiceProcess
from tests.integration.web_handlers.web_world import (
    DONE,
    USAGE,
    Script,
    Server,
    answer,
    asking,
    chunk,
    stream,
)
from tests.waiting import until

WAIT_S = 2.0  # longer than the first wait of its own
LIMIT = b'{"error":{"message":"Rate limit reached","code":"rate_limit_exceeded"}}'
TOO_QUICK = answer(
    "429 Too Many Requests", LIMIT, headers={"retry-after-ms": f"{WAIT_S * 1000:.0f}"}
)
CUT = stream(chunk("one "), chunk("two "), whole=False)
BROKEN = answer("500 Internal Server Error", b'{"error":{"message":"boom"}}')
WHOLE = stream(chunk("hi"), chunk(finish="stop"), USAGE, DONE)
STORIES: dict[str, tuple[list[Script], list[str | None]]] = {
    "rate": ([TOO_QUICK, TOO_QUICK, WHOLE], ["rate_limited", "rate_limited", None]),
    "cut once": ([CUT, WHOLE], ["connection_error", None]),
    "broken once": ([BROKEN, WHOLE], ["http_error", None]),
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    service = ServiceProcess(
        tmp_path_factory.mktemp("repeats") / "data",
        executor__chat__any_url="true",
        executor__web__allow_networks="127.0.0.1",
    )
    yield service.start()
    service.stop()


def ended(client: httpx.Client, plan: str) -> dict[str, Any]:
    """The plan's only task, once its plan has ended."""
    until(lambda: client.get(f"/v1/plans/{plan}").json()["finished_at"], what="the plan has ended")
    return client.get(f"/v1/plans/{plan}/tasks/t").json()


def at(moment: str) -> datetime:
    return datetime.fromisoformat(moment)


@pytest.mark.parametrize("name", STORIES)
def test_a_server_that_recovers_is_asked_again_and_its_answer_kept(
    service: ServiceProcess, server: Server, name: str
) -> None:
    scripts, errors = STORIES[name]
    server.answers(*scripts)
    plan = name.replace(" ", "-")
    with httpx.Client(base_url=service.url, timeout=20) as client:
        given = {"id": "t", "kind": "chat", "input": asking(server)}
        submitted = client.post("/v1/plans", json={"id": plan, "tasks": [given]})
        assert submitted.status_code == 201, submitted.text
        task = ended(client, plan)
    assert task["status"] == "COMPLETED"
    assert task["output"]["content"] == "hi"
    assert [each["error_type"] for each in task["executions"]] == errors
    assert task["executions"][-1]["token_usage"]["total_tokens"] == 7
    assert len(server.requests) == len(scripts), "one question for each attempt"
    if name == "rate":
        failed, repeated = task["executions"][:2]
        waited = at(repeated["claimed_at"]) - at(failed["finished_at"])
        assert waited >= timedelta(seconds=WAIT_S), "no sooner than the server asked for"
