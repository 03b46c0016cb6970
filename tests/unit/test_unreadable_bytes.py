"""Bytes from outside that are not UTF-8, too deep or no JSON are named as such, and end nothing."""

import fcntl
from pathlib import Path

import pytest

from holdfast_worker import TaskFailed
from service.executor.handlers.chat.schema import check_format
from service.ops.backups import MANIFEST, BackupError, checked
from service.runtime.data_folder import LOCK_FILE, read_holder
from service.runtime.masking import Masking
from service.runtime.nats_server.credentials import read_context
from streams.jetstream.topology import info_of
from streams.log import LogUnavailable

UNREADABLE = pytest.mark.parametrize(
    "content",
    [b'{"url": "\xff", "created": "\xff", "pid": 1}', b"[" * 100_000, b"\xff\xfe", b'{"pid": '],
    ids=["a text that is not UTF-8", "nested", "binary", "cut"],
)


@UNREADABLE
def test_a_lock_file_names_no_holder(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / LOCK_FILE
    path.write_bytes(content)
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        assert read_holder(tmp_path) is None


@UNREADABLE
def test_a_file_of_credentials_holds_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "reader.json"
    path.write_bytes(content)
    path.chmod(0o600)

    assert read_context(tmp_path, "reader") is None


@UNREADABLE
def test_a_manifest_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(content)

    with pytest.raises(BackupError, match=MANIFEST):
        checked(tmp_path)


@UNREADABLE
async def test_an_answer_of_the_log_is_no_answer(content: bytes) -> None:
    async def ask(_question: str, _body: bytes) -> bytes:
        return content

    with pytest.raises(LogUnavailable, match="cannot be read"):
        await info_of(ask, "PLANS")


@UNREADABLE
def test_what_holds_a_secret_and_cannot_be_read_is_masked_whole(content: bytes) -> None:
    masking = Masking()
    masking.know(["a-secret-of-ours"])

    assert b"a-secret-of-ours" not in masking.json(content + b'"a-secret-of-ours"')


async def test_an_answer_of_a_model_is_no_json() -> None:
    with pytest.raises(TaskFailed, match="no JSON"):
        await check_format("[" * 100_000, {"type": "json_object"}, 1)
