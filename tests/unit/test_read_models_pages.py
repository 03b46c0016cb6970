"""Cursors are opaque, bounded and checked; bulk statements write every row exactly once."""

import base64
import sqlite3
from contextlib import closing, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from projections.read_models import bulk
from projections.read_models.pagination import BadCursor, Page, cursor_after, key_of, read_page
from projections.read_models.pending import Pending
from streams.log import Fact
from streams.plan.events import (
    Checkpointed,
    Claimed,
    Completed,
    Event,
    Failed,
    Submitted,
    TaskSpec,
)
from streams.plan.fold import fold_plan


@given(key=st.integers(0, 2**63 - 1))
def test_a_cursor_gives_back_its_key(key: int) -> None:
    assert key_of("tasks", cursor_after("tasks", key)) == key


@given(cursor=st.text(max_size=100))
def test_any_text_is_a_cursor_or_refused(cursor: str) -> None:
    with suppress(BadCursor):
        assert key_of("plans", cursor) >= 0


@pytest.mark.parametrize(
    "content", [b"", b"1:tasks:", b"1:tasks:-1", b"2:tasks:1", b"1:plans:1", b"1:tasks:1x",
                b"1:tasks:9223372036854775808", b"1:tasks:\xd9\xa1"],
)  # fmt: skip
def test_contents_that_were_never_given_out_are_refused(content: bytes) -> None:
    with pytest.raises(BadCursor):
        key_of("tasks", base64.urlsafe_b64encode(content).decode().rstrip("="))


def test_cursors_are_short_and_fit_a_url() -> None:
    cursor = cursor_after("executions", 2**63 - 1)
    assert len(cursor) <= 64
    assert cursor.replace("-", "").replace("_", "").isalnum()


def numbers(limit: int, max_bytes: int = 10_000_000) -> Page[int]:
    """A page of the rows 9, 8 … 1, each of some 1,500 bytes."""
    sql = """WITH RECURSIVE n(i) AS (SELECT 9 UNION ALL SELECT i - 1 FROM n WHERE i > 1)
    SELECT i, zeroblob(1000) FROM n"""
    with closing(sqlite3.connect(":memory:")) as connection:
        return read_page(
            connection, "plans", sql, (), lambda row: row[0], limit=limit, max_bytes=max_bytes
        )


def test_a_page_knows_whether_more_follows() -> None:
    assert numbers(9).next is None
    assert numbers(2) == Page([9, 8], cursor_after("plans", 8))


def test_a_page_ends_at_its_bytes_but_is_never_empty() -> None:
    assert numbers(9, max_bytes=5_000) == Page([9, 8, 7], cursor_after("plans", 7))
    assert numbers(9, max_bytes=1) == Page([9], cursor_after("plans", 9))


@pytest.mark.parametrize("count", [0, 1, 2, 8, 9, 64, 65, 257, 1_023, 1_024, 1_025, 2_500])
def test_every_row_is_written_once_whatever_their_number(count: int) -> None:
    rows = [(n, f"v{n}") for n in range(count)]
    changed = [(n, "new") for n in range(0, count, 2)]
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT)")
        for statement, parameters in bulk.insert("t", ("k", "v")).calls(rows):
            connection.executemany(statement, parameters)
        for statement, parameters in bulk.update("t", ("k", "v")).calls([*changed, (-1, "no")]):
            connection.executemany(statement, parameters)
        found = connection.execute("SELECT k, v FROM t ORDER BY k").fetchall()
    assert found == [(n, "v" + str(n) if n % 2 else "new") for n in range(count)]


def test_rows_put_back_lie_under_newer_ones() -> None:
    table = bulk.Changes(bulk.update("t", ("k", "v")), bulk.insert("t", ("k", "f", "v")))
    table.fixed[1] = (1, "fixed")
    table.changing.update({1: (1, "old"), 2: (2, "old")})
    taken = table.cut()
    table.changing.update({1: (1, "new"), 3: (3, "new")})
    table.put_back(taken)
    assert table.changing == {1: (1, "new"), 2: (2, "old"), 3: (3, "new")}
    assert table.fixed == {1: (1, "fixed")}


LONG = "x" * 10_000
TEXT = Raw(f'"{LONG}"'.encode())
PLAN = Submitted(
    context=TEXT, tasks=(TaskSpec(id="t", kind="k", input=TEXT), TaskSpec(id="u", kind="k"))
)
CLAIM = Claimed(owner="w", attempt=1, lease_s=30)


@pytest.mark.parametrize(
    ("events", "long_texts"),
    [
        ([], 2),  # the plan's context and the task's input
        ([CLAIM, Checkpointed(owner="w", attempt=1, key="k", value=TEXT, lease_s=30)], 3),
        ([CLAIM, Completed(owner="w", attempt=1, output=TEXT)], 3),
        ([CLAIM, Completed(owner="w", attempt=1, output=Raw(b"[%b]" % b",".join([TEXT] * 9)))], 11),
        # The message stands in the task's result and in its execution.
        ([CLAIM, Failed(owner="w", attempt=1, error_type="e", error_message=LONG)], 4),
    ],
    ids=["submitted", "checkpoint", "output", "large output", "error"],
)
def test_every_long_text_that_waits_for_sqlite_counts(events: list[Event], long_texts: int) -> None:
    submitted = Fact(1, 0.0, "p", None, PLAN)
    later = [Fact(n, 0.0, "p", "t", event) for n, event in enumerate(events, 2)]
    plan = fold_plan([submitted, *later])
    assert plan is not None
    pending = Pending(0, "epoch")
    pending.add(plan)
    assert long_texts * len(LONG) < pending.size_bytes < (long_texts + 1) * len(LONG)
