"""The instances that the recordings are made with: open, guarded by tokens, and in trouble."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from service.app import Instance
from service.principals.token import digest_of
from streams.log import Appended, AppendError, Conflict, Draft, LogFull, LogUnavailable, TooLarge
from tests.integration.http_world import serving, until_status
from tests.integration.recorded.exchange import TOKENS, Line, exchange

HERE = Path(__file__).parent
TOKENS_FILE = "".join(
    f'[[token]]\nid = "{role:0<8}"\nname = "w1"\nroles = ["{role}"]\n'
    f'sha256 = "{digest_of(token.split("_", 2)[2].encode()).hex()}"\n'
    for role, token in TOKENS.items()
    if role != "wrong"
)


def _appends_fail(error: Exception) -> Callable[[Instance], None]:
    """The log refuses every append with ``error``."""

    async def append(_: Draft) -> Appended | Conflict:
        raise error

    async def append_all(drafts: Sequence[Draft]) -> list[Exception]:
        if isinstance(error, AppendError):
            return [error] * len(drafts)
        raise error

    def fails(instance: Instance) -> None:
        vars(instance.core.log).update(append=append, append_all=append_all)

    return fails


def _appends_lose(instance: Instance) -> None:
    """Every append loses its race against another writer."""

    async def append(draft: Draft) -> Appended | Conflict:
        return Conflict(draft.expected)

    async def append_all(drafts: Sequence[Draft]) -> list[Conflict]:
        return [Conflict(draft.expected) for draft in drafts]

    vars(instance.core.log).update(append=append, append_all=append_all)


async def _database_closed(instance: Instance) -> None:
    await instance.core.database.close()


Trouble = Callable[[Instance], Any]

SCENES: Mapping[str, Trouble | None] = {
    "open": None,
    "tokens": None,
    "streams": None,
    "log_unavailable": _appends_fail(LogUnavailable("the log does not answer")),
    "log_full": _appends_fail(LogFull("the log holds as much as it may")),
    "fact_too_large": _appends_fail(TooLarge("one fact has more bytes than the log accepts")),
    "defect": _appends_fail(RuntimeError("a secret: hunter2")),
    "contended": _appends_lose,
    "database_unavailable": _database_closed,
}
"""What is done to each scene's instance after the lines that are marked ``before``."""


def lines_of(scene: str) -> list[Line]:
    """The scene's requests with the recorded answers."""
    text = (HERE / f"{scene}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


async def play(scene: str, folder: Path) -> AsyncIterator[tuple[Line, Line]]:
    """Ask everything in order; yields each line with the answer of today."""
    flags: dict[str, object] = {"executor__worker__processes": 1}  # the status tells of it
    if scene == "tokens":
        (folder / "tokens").write_text(TOKENS_FILE)
        (folder / "tokens").chmod(0o600)
        flags["auth__tokens_file"] = str(folder / "tokens")
    trouble = SCENES[scene]
    async with serving(folder, **flags) as (instance, client):
        for line in lines_of(scene):
            if trouble is not None and not line.get("before"):
                made = trouble(instance)
                if asyncio.iscoroutine(made):
                    await made
                trouble = None
            yield line, await _asked(instance, client, line)


async def _asked(instance: Instance, client: httpx.AsyncClient, line: Line) -> Line:
    if settle := line.get("settle"):
        await until_status(client, *settle)
    answer = await exchange(instance.http_url, line)
    return answer.comparable(line)
