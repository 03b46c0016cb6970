"""Plans that hold a secret: one whose value is known is refused, one that looks so is warned of."""

import re
from collections.abc import Iterator

from msgspec import Raw

from service.runtime.masking import KNOWN
from streams.plan.events import Submitted

MOST_WARNINGS = 10

# What keys of well-known providers look like, by how they begin: one literal is found quickly.
_KEYS = {
    beginning: re.compile(re.escape(beginning) + rest)
    for beginning, rest in {
        b'"sk-': rb"[A-Za-z0-9_-]{20}",
        b"AKIA": rb"[0-9A-Z]{16}",
        b"AIza": rb"[0-9A-Za-z_-]{35}",
        b"ghp_": rb"[A-Za-z0-9]{36}",
        b"gho_": rb"[A-Za-z0-9]{36}",
        b"ghs_": rb"[A-Za-z0-9]{36}",
        b"github_pat_": rb"\w{22}",
        b"glpat-": rb"[\w-]{20}",
        b"xoxb-": rb"[A-Za-z0-9-]{10}",
        b"xoxp-": rb"[A-Za-z0-9-]{10}",
        b"hf_": rb"[A-Za-z0-9]{30}",
        b"Bearer ": rb"[A-Za-z0-9._~+/-]{16}",
        b"Basic ": rb"[A-Za-z0-9+/]{16}",
        b"-----BEGIN ": rb"[A-Z ]*PRIVATE KEY",
        b"eyJ": rb"[\w-]{10,}\.eyJ[\w-]{10}",
    }.items()
}


def _rarest(beginning: bytes) -> bytes:
    """The last of its bytes that most texts have none of: looking for one byte takes no time."""
    return re.findall(rb"[^a-z \"]", beginning)[-1]


_RAREST = {beginning: _rarest(beginning) for beginning in _KEYS}


def secret_complaint(plan: Submitted) -> str | None:
    """Where the value of a known secret stands in a plan; None: nowhere."""
    if not KNOWN.holds(_whole(plan)):
        return None
    place = next((place for place, content in _parts(plan) if KNOWN.holds(content)), "plan")
    return f'{place}: holds the value of a secret; say {{"secret": "NAME"}} instead'


def key_warnings(plan: Submitted) -> tuple[str, ...]:
    """Where a plan seems to hold a key, which then stands in the log for ever; the first ten."""
    if not _looks_like_a_key(_whole(plan)):
        return ()
    places = [place for place, content in _parts(plan) if _looks_like_a_key(content)]
    return tuple(
        f"{place}: looks as if it holds a key, which now stands in the log for ever; revoke it, "
        'and name a secret of the settings instead: {"secret": "NAME"}'
        for place in places[:MOST_WARNINGS]
    )


def _looks_like_a_key(content: bytes) -> bool:
    return any(
        not content[max(found.start() - 1, 0) : found.start()].isalnum()
        for beginning, pattern in _KEYS.items()
        if _RAREST[beginning] in content and beginning in content
        for found in pattern.finditer(content)
    )


def _whole(plan: Submitted) -> bytes:
    """Everything that a submitter writes freely, in one piece: a plan may have 10,000 tasks."""
    return b"\n".join(_contents(plan))


def _parts(plan: Submitted) -> Iterator[tuple[str, bytes]]:
    """The same, piece by piece, each with its place in words."""
    inputs = [f"task {task.id!r}: input" for task in plan.tasks]
    return zip(("context", "name or labels", *inputs), map(bytes, _contents(plan)), strict=True)


def _contents(plan: Submitted) -> list[bytes | Raw]:
    words = "\n".join((plan.name, *plan.labels, *plan.labels.values())).encode(errors="replace")
    return [plan.context, words, *[task.input for task in plan.tasks]]
