"""A data folder belongs to one living process, and an error names it."""

import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.runtime.data_folder import (
    LOCK_FILE,
    DataFolder,
    DataFolderBusy,
    DataFolderError,
    FolderHolder,
    read_holder,
)

HOLD = """
    import sys
    from pathlib import Path
    from service.runtime.data_folder import DataFolder
    folder = DataFolder.acquire(Path(sys.argv[1]), "other:1:ab")
    folder.announce(nats_url="nats://127.0.0.1:1", http_url="http://127.0.0.1:2")
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other_process(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Another process that holds the folder until its stdin closes."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLD), str(tmp_path)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_second_process_gets_an_error_that_names_the_holder(
    tmp_path: Path, other_process: "subprocess.Popen[bytes]"
) -> None:
    with pytest.raises(DataFolderBusy) as caught:
        DataFolder.acquire(tmp_path, "me")
    assert caught.value.holder == FolderHolder(
        other_process.pid, "other:1:ab", "nats://127.0.0.1:1", "http://127.0.0.1:2"
    )
    for part in (str(tmp_path), str(other_process.pid), "other:1:ab", "HOLDFAST_DATA_DIR"):
        assert part in str(caught.value)


def test_the_holder_can_be_read_by_anyone(
    tmp_path: Path, other_process: "subprocess.Popen[bytes]"
) -> None:
    holder = read_holder(tmp_path)
    assert holder is not None
    assert (holder.pid, holder.http_url) == (other_process.pid, "http://127.0.0.1:2")


def test_a_killed_holder_frees_the_folder(
    tmp_path: Path, other_process: "subprocess.Popen[bytes]"
) -> None:
    other_process.send_signal(signal.SIGKILL)
    other_process.wait()
    assert read_holder(tmp_path) is None
    with DataFolder.acquire(tmp_path, "me") as folder:
        assert folder.holder.pid == os.getpid()


def test_the_same_process_cannot_hold_it_twice(tmp_path: Path) -> None:
    with DataFolder.acquire(tmp_path, "me"), pytest.raises(DataFolderBusy):
        DataFolder.acquire(tmp_path, "me")


def test_a_released_folder_has_no_holder_and_can_be_taken_again(tmp_path: Path) -> None:
    folder = DataFolder.acquire(tmp_path, "me")
    folder.release()
    folder.release()
    assert read_holder(tmp_path) is None
    DataFolder.acquire(tmp_path, "me").release()


def test_a_shorter_announcement_replaces_a_longer_one(tmp_path: Path) -> None:
    with DataFolder.acquire(tmp_path, "me") as folder:
        folder.announce(nats_url="nats://" + "x" * 200, http_url="http://a")
        folder.announce(nats_url="nats://b", http_url="http://a")
        assert read_holder(tmp_path) == FolderHolder(os.getpid(), "me", "nats://b", "http://a")


def test_a_folder_that_was_never_used_has_no_holder(tmp_path: Path) -> None:
    assert read_holder(tmp_path / "absent") is None


def test_reading_never_makes_the_folder_look_busy(tmp_path: Path) -> None:
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            read_holder(tmp_path)

    readers = [threading.Thread(target=read) for _ in range(2)]
    DataFolder.acquire(tmp_path, "me").release()
    for reader in readers:
        reader.start()
    try:
        for _ in range(20):
            DataFolder.acquire(tmp_path, "me").release()
    finally:
        stop.set()
        for reader in readers:
            reader.join()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataFolderError, match=r"file/data cannot be used.*HOLDFAST_DATA_DIR"):
        DataFolder.acquire(tmp_path / "file" / "data", "me")


def test_a_new_folder_and_an_open_one_of_ours_are_closed_to_others(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    for name in ("open", "new"):
        with DataFolder.acquire(tmp_path / name, "me"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o700
            assert stat.S_IMODE((tmp_path / name / LOCK_FILE).stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(mode)
    with pytest.raises(DataFolderError, match=r"written by other accounts.*HOLDFAST_DATA_DIR"):
        DataFolder.acquire(tmp_path / "data", "me")
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a folder away")
def test_a_folder_of_another_account_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    os.chown(tmp_path / "data", 65534, 65534)
    with pytest.raises(DataFolderError, match="belongs to the account 65534"):
        DataFolder.acquire(tmp_path / "data", "me")


@pytest.mark.parametrize(
    "link", ["data", f"data/{LOCK_FILE}", "data/readmodels.sqlite", "data/nats/x"]
)
def test_no_link_is_followed(tmp_path: Path, link: str) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "victim").write_text("untouched")
    target = tmp_path / ("elsewhere" if link == "data" else "victim")
    (tmp_path / link).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    (tmp_path / link).symlink_to(target)
    with pytest.raises(DataFolderError, match="symbolic link"):
        DataFolder.acquire(tmp_path / "data", "me")
    assert (tmp_path / "victim").read_text() == "untouched"
    assert list((tmp_path / "elsewhere").iterdir()) == []
