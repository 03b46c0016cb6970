"""Where each fact stands: the names of subjects, and the ids that may be part of them.

``plans.<plan>`` holds a plan's own facts, ``plans.<plan>.<task>`` those of one task, and
``audit.<event>.<plan>.<task>`` what happened around the log. Below ``snapshots`` stand copies of
the read models. ``peers.goodbye`` is in no stream.
"""

import re
from functools import lru_cache

PLANS = "plans"
AUDIT = "audit"
ALL_PLANS = f"{PLANS}.>"
ALL_AUDIT = f"{AUDIT}.>"
SNAPSHOTS = "snapshots"
ALL_SNAPSHOTS = f"{SNAPSHOTS}.>"
NEWEST_SNAPSHOT = f"{SNAPSHOTS}.newest"
SNAPSHOT_PLACES = (f"{SNAPSHOTS}.a", f"{SNAPSHOTS}.b")  # where pieces stand, in turns
GOODBYES = "peers.goodbye"  # instances tell each other, and no stream keeps it

# Stands in an audit subject for "no plan" or "no task"; it cannot be an id.
ABSENT = "~"

REMEMBERED = 16_384  # subjects whose facts come again and again, as those of leases do

_ID = "[A-Za-z0-9_-]{1,64}"
_is_id = re.compile(_ID).fullmatch
_is_audit_subject = re.compile(
    rf"{AUDIT}\.[a-z0-9_]{{1,64}}\.(?:{_ID}|{ABSENT})\.(?:{_ID}|{ABSENT})"
).fullmatch
_split = re.compile(rf"plans\.({_ID})(?:\.({_ID}))?").fullmatch


def is_id(text: str) -> bool:
    """Whether ``text`` may name a plan or a task."""
    return _is_id(text) is not None


def checked_id(text: str) -> str:
    """``text`` itself; raises ValueError when it cannot name a plan or a task."""
    if _is_id(text) is None:
        raise ValueError(f"not an id ({_ID}): {text!r}")
    return text


@lru_cache(maxsize=REMEMBERED)
def subject_of(plan_id: str, task_id: str | None = None) -> str:
    """The subject of a plan's own facts, or of one task's; raises ValueError on a bad id."""
    subject = f"{PLANS}.{plan_id}" if task_id is None else f"{PLANS}.{plan_id}.{task_id}"
    if split_subject(subject) != (plan_id, task_id):
        raise ValueError(f"not an id ({_ID}) in {subject!r}")
    return subject


def tasks_of(plan_id: str) -> str:
    """The filter that matches every task of a plan, but not the plan's own subject."""
    return f"{PLANS}.{checked_id(plan_id)}.>"


@lru_cache(maxsize=REMEMBERED)
def split_subject(subject: str) -> tuple[str, str | None] | None:
    """(plan, task or None), or None when no fact of ours can stand on ``subject``."""
    found = _split(subject)
    if found is None:
        return None
    plan_id, task_id = found.groups()
    return plan_id, task_id


def audit_subject(event: str, plan_id: str | None, task_id: str | None) -> str:
    """``audit.<event>.<plan>.<task>``; raises ValueError on a bad event name or id."""
    plan = ABSENT if plan_id is None else plan_id
    task = ABSENT if task_id is None else task_id
    subject = f"{AUDIT}.{event}.{plan}.{task}"
    if _is_audit_subject(subject) is None:
        raise ValueError(f"no audit entry can have the subject {subject!r}")
    return subject
