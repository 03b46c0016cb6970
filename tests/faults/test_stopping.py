"""A stop while requests are under way: each is answered, and no secret reaches the log."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.conftest import PrivateServer
from tests.faults.service_process import ServiceProcess
from tests.unit.tokens_world import give
from tests.waiting import until

pytestmark = pytest.mark.faults

REQUESTS = 3


def submit(url: str, token: str, number: int) -> httpx.Response:
    plan = {"id": f"p{number}", "context": {"password": token}, "tasks": [{"id": "t", "kind": "x"}]}
    headers = {"Authorization": f"Bearer {token}", "X-Request-Id": f"request-{number}"}
    return httpx.post(f"{url}/v1/plans", json=plan, headers=headers, timeout=40)


def test_requests_that_wait_for_a_frozen_log_are_answered_503_at_sigterm(
    tmp_path: Path, private_nats: PrivateServer
) -> None:
    tokens = tmp_path / "tokens"
    token = give(tokens, "me", "operator")
    service = ServiceProcess(
        tmp_path / "data", nats_url=private_nats.url, auth__tokens_file=str(tokens)
    ).start()
    private_nats.pause()
    with ThreadPoolExecutor(REQUESTS) as pool:
        asking = [pool.submit(submit, service.url, token, number) for number in range(REQUESTS)]
        asked_at = time.monotonic()
        until(lambda: time.monotonic() > asked_at + 0.5)
        assert not any(each.done() for each in asking)
        service.stop()
        answers = [each.result() for each in asking]
    private_nats.resume()
    for number, answer in enumerate(answers):
        assert answer.status_code == 503, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-request-id"] == f"request-{number}"
        assert answer.json()["code"] in ("unavailable", "log_unavailable")
    assert token not in service.output
    assert "Traceback" not in service.output
