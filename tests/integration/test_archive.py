"""The archive of forgotten plans: what is written is read, and the first broken link is named."""

import gzip
from pathlib import Path

import pytest

from service.archive.days import Archive, ArchiveBusy, ArchiveError, Closing, files_of, read, verify
from streams.codec import HEADER_LINE
from streams.log import LogMessage
from tests.faults.service_process import run_holdfast

DAY_S = 86_400.0


def facts(plan_id: str, count: int = 3) -> list[LogMessage]:
    return [
        LogMessage(n, 10.0 + n, f"plans.{plan_id}", HEADER_LINE + b"\r\n", b'{"n":%d}' % n)
        for n in range(1, count + 1)
    ]


def write(folder: Path, *names: str, at: float = 0.0) -> None:
    archive = Archive.open(folder)
    try:
        for name in names:
            writing = archive.begin(name, at)
            writing.add(facts(name))
            writing.end()
        archive.sync()
    finally:
        archive.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two plans on one day, by two processes, and one on the next."""
    write(tmp_path / "archive", "p")
    write(tmp_path / "archive", "q")
    write(tmp_path / "archive", "r", at=DAY_S)
    return tmp_path / "archive"


def rewritten(path: Path, before: bytes, after: bytes) -> None:
    text = gzip.decompress(path.read_bytes())
    assert before in text
    path.write_bytes(gzip.compress(text.replace(before, after, 1)))


def test_each_day_has_a_file_and_the_chain_goes_through_all(folder: Path) -> None:
    assert [path.name for path in files_of(folder)] == [
        "1970-01-01.ndjson.gz",
        "1970-01-02.ndjson.gz",
    ]
    assert verify(folder) == 3
    closings = [
        line for path in files_of(folder) for line in read(path) if isinstance(line, Closing)
    ]
    assert [each.archived for each in closings] == ["p", "q", "r"]
    assert [each.previous for each in closings] == ["", *(each.sha256 for each in closings[:2])]


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        (b'{"n":2}', b'{"n":3}', "plan 'p'"),
        (b'"facts":3', b'"facts":4', "plan 'p'"),
        (b'"archived":"q"', b'"archived":"q","more":1', "cannot be read"),
    ],
    ids=["a fact", "a count", "a field"],
)
def test_a_change_breaks_the_link_of_its_entry(
    folder: Path, before: bytes, after: bytes, named: str
) -> None:
    rewritten(files_of(folder)[0], before, after)
    with pytest.raises(ArchiveError, match=named):
        verify(folder)


def test_an_entry_or_a_file_that_is_missing_breaks_the_next_link(folder: Path) -> None:
    first = files_of(folder)[0]
    text = gzip.decompress(first.read_bytes())
    lines = text.splitlines(keepends=True)
    first.write_bytes(gzip.compress(b"".join(lines[:4])))
    with pytest.raises(ArchiveError, match="plan 'r': it does not follow"):
        verify(folder)
    first.unlink()
    with pytest.raises(ArchiveError, match="plan 'r': it does not follow"):
        verify(folder)


@pytest.mark.parametrize("torn", [1, 10, 60])
def test_what_a_crash_has_cut_off_is_removed_and_the_chain_goes_on(folder: Path, torn: int) -> None:
    path = files_of(folder)[-1]
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:torn])
    write(folder, "s", at=DAY_S)
    assert verify(folder) == 4
    path.write_bytes(path.read_bytes()[:-torn])  # the last entry is torn: it was never reported
    write(folder, "t", at=DAY_S)
    assert verify(folder) == 4


def test_an_entry_that_is_abandoned_leaves_nothing(folder: Path) -> None:
    archive = Archive.open(folder)
    before = files_of(folder)[-1].read_bytes()
    writing = archive.begin("x", DAY_S)
    writing.add(facts("x", 1_000))
    writing.abandon()
    assert files_of(folder)[-1].read_bytes() == before
    with pytest.raises(ArchiveBusy):
        Archive.open(folder)
    archive.close()
    write(folder, "y", at=DAY_S)
    assert verify(folder) == 4


def test_the_commands_show_and_verify(folder: Path) -> None:
    code, said = run_holdfast("archive", "show", str(folder))
    assert (code, len(said.splitlines())) == (0, 3), said
    code, said = run_holdfast("archive", "show", retention__archive_dir=str(folder))
    assert (code, len(said.splitlines())) == (0, 3), said
    code, said = run_holdfast("archive", "show", str(folder), "--plan", "q")
    assert (code, said.count('"subject":"plans.q"')) == (0, 3), said
    assert run_holdfast("archive", "show", str(folder), "--plan", "none")[0] == 1
    assert run_holdfast("archive", "verify")[0] == 2
    assert run_holdfast("archive", "verify", str(folder / "none"))[0] == 1
    code, said = run_holdfast("archive", "verify", str(folder))
    assert (code, "3 entries" in said) == (0, True), said
    rewritten(files_of(folder)[0], b'{"n":2}', b'{"n":3}')
    code, said = run_holdfast("archive", "verify", str(folder))
    assert (code, "1970-01-01.ndjson.gz, entry 1" in said) == (1, True), said
