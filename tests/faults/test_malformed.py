"""Malformed requests to an instance as a process: no 5xx, no hang, and nothing of them stays.

The short form sends some 2,000, the long one 30,000 to an instance without tokens and 10,000 to one
with. ``HOLDFAST_SEED`` draws other requests.
"""

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.faults.conftest import StartService
from tests.faults.malformed import Grammar
from tests.faults.open_files import files_open
from tests.faults.raw_http import Outcome, send_all
from tests.faults.report import Report
from tests.unit.tokens_world import bearer, give
from tests.waiting import eventually

SEED = int(os.environ.get("HOLDFAST_SEED", "1"))
HEAD_S, BODY_S = 1.0, 2.0
DEADLINE_S = HEAD_S + BODY_S + 22  # a wrong token costs a pause, and the machine is shared
AT_ONCE = 64
HONEST_WITHIN_S = 25.0
BACK_WITHIN_S = 40.0


class Honest:
    """A client that reads and writes beside a run; each of its requests must succeed."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self._client = httpx.AsyncClient(base_url=url, headers=headers, timeout=HONEST_WITHIN_S)
        self.served = 0

    async def run(self) -> None:
        """It writes, and leaves nothing that grows in memory."""
        plan: dict[str, Any] = {"id": "honest", "tasks": [{"id": "a", "kind": "outside"}]}
        async with self._client as client:
            while True:
                for path, body in (
                    ("/v1/plans", plan),
                    ("/v1/plans/honest/pause", {}),
                    ("/v1/plans/honest/resume", {}),
                ):
                    answer = await client.post(path, json=body)
                    assert answer.is_success, answer.text
                for path in ("/healthz", "/v1/plans/honest"):
                    answer = await client.get(path)
                    assert answer.is_success, answer.text
                self.served += 1
                await asyncio.sleep(0.05)


async def attack(grammar: Grammar, count: int, url: str, headers: dict[str, str]) -> Outcome:
    """Send the requests, with an honest client beside them."""
    target = httpx.URL(url)
    honest = Honest(url, headers)
    beside = asyncio.create_task(honest.run())
    sending = asyncio.create_task(
        send_all(
            grammar, count, (target.host, target.port or 0), at_once=AT_ONCE, deadline_s=DEADLINE_S
        )
    )
    try:
        await asyncio.wait({beside, sending}, return_when=asyncio.FIRST_COMPLETED)
        assert not beside.done(), f"an honest client: {beside.exception()!r}"
        outcome = await sending
    finally:
        for each in (beside, sending):
            each.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await each
    assert honest.served
    return outcome


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("with_tokens", [False, True], ids=["without tokens", "with tokens"])
async def test_malformed_requests_get_no_5xx_and_leave_nothing_behind(
    start_service: StartService,
    tmp_path: Path,
    report: Report,
    *,
    with_tokens: bool,
    long_faults: bool,
) -> None:
    settings = {"http__head_timeout_s": str(HEAD_S), "http__body_timeout_s": str(BODY_S)}
    credential, headers = b"", {}
    if with_tokens:
        tokens = tmp_path / "tokens.toml"
        headers = bearer(give(tokens, "ann", "operator"))
        credential = (
            b"Authorization: " + bearer(give(tokens, "w", "operator"))["Authorization"].encode()
        )
        settings["auth__tokens_file"] = str(tokens)
    service = start_service(**settings)
    count = (10_000 if with_tokens else 30_000) if long_faults else 1_000
    grammar = Grammar(SEED, service.url.removeprefix("http://"), credential)
    process = psutil.Process(service.pid)
    # Caches fill and the allocator takes its share; only what comes after that can be a leak.
    warm = await attack(grammar, max(count // 2, 400), service.url, headers)
    memory, descriptors = process.memory_info().rss, files_open(service.pid)
    outcome = await attack(grammar, count, service.url, headers)
    assert warm.faults + outcome.faults == []
    await eventually(
        lambda: files_open(service.pid) <= descriptors, "its descriptors are back", BACK_WITHIN_S
    )
    await eventually(
        lambda: process.memory_info().rss <= memory * 1.1, "its memory is back", BACK_WITHIN_S
    )
    report.add(
        "malformed requests",
        "with tokens" if with_tokens else "without tokens",
        seed=SEED,
        sent=outcome.sent,
        answers=[f"{status}: {n}" for status, n in sorted(outcome.answers.items())],
        unanswered=outcome.unanswered,
        slowest_s=outcome.slowest_s,
        memory_mb=[memory / 1e6, process.memory_info().rss / 1e6],
        descriptors=[descriptors, files_open(service.pid)],
    )
    assert service.readiness() == (httpx.codes.OK, [])
    for fault in ("unexpected", "Exception", "Traceback", "Invalid HTTP request", "pip install"):
        assert fault not in service.output
