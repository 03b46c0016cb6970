"""An entry as it is written: encoded once for its message, its log line and its row."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from projections.read_models.audit import AuditClass, Entry
from projections.read_models.views import moment
from service.runtime.masking import KNOWN
from service.signals.log_lines import Lines
from streams.jetstream.audit_stream import TrailEntry
from streams.json_values import text_of
from streams.subjects import audit_subject, is_id

LONGEST_JSON = 2_000  # bytes of what was expected, and of what was there

_lines = logging.getLogger("holdfast.audit")
_LEVELS: Mapping[AuditClass, int] = {"success": logging.INFO, "always": logging.WARNING}
_ENDINGS: Mapping[AuditClass, bytes] = {
    kind: b',"level":"%b","logger":"%b"}'
    % (logging.getLevelName(level).lower().encode(), _lines.name.encode())
    for kind, level in _LEVELS.items()
}
_encode = msgspec.json.Encoder(enc_hook=text_of).encode

# Hears of an entry that cannot be encoded: its event, and why.
OnInvalid = Callable[[str, Exception], None]


class Note(msgspec.Struct, frozen=True, gc=False):
    """An entry that is not encoded yet; those of one ``once`` are one entry."""

    entry: Entry
    once: str | None


class _Encoded(msgspec.Struct, frozen=True, gc=False):
    note: Note
    subject: str
    payload: bytes


def encoded(notes: Sequence[Note], ids: Iterator[str], on_invalid: OnInvalid) -> list[TrailEntry]:
    """Encode notes, with secrets masked, and say their lines; what cannot be encoded is left out.

    All are looked through for secrets in one go.
    """
    found = [each for note in notes if (each := _encoded(note, on_invalid)) is not None]
    payloads = KNOWN.documents([each.payload for each in found])
    _say(found, payloads)
    return [
        TrailEntry(
            id=each.note.once or next(ids),
            event=each.note.entry.event,
            subject=each.subject,
            payload=payload,
        )
        for each, payload in zip(found, payloads, strict=True)
    ]


def json_of(value: object) -> Raw:
    """``value`` as an entry holds it; the text of its beginning when it is too long for one."""
    try:
        data = _encode(value)
    except (ValueError, TypeError):  # half a surrogate pair, for one
        data = b""
    if 0 < len(data) <= LONGEST_JSON:
        return Raw(data)
    return Raw(_encode(text_of(value, LONGEST_JSON // 4)))


def _encoded(note: Note, on_invalid: OnInvalid) -> _Encoded | None:
    try:
        entry = note.entry
        try:
            subject = audit_subject(entry.event, entry.plan_id, entry.task_id)
        except ValueError:  # a caller may name what does not exist, with any name
            entry = replace(entry, plan_id=_id(entry.plan_id), task_id=_id(entry.task_id))
            subject = audit_subject(entry.event, entry.plan_id, entry.task_id)
        return _Encoded(note, subject, _encode(entry))
    except Exception as error:  # noqa: BLE001 - the others are written all the same
        on_invalid(note.entry.event, error)
        return None


def _id(text: str | None) -> str | None:
    return text if text is not None and is_id(text) else None


def _say(found: Sequence[_Encoded], payloads: Sequence[bytes]) -> None:
    """The lines of entries, as one record: the logger is asked once for all."""
    said = {kind for kind in _LEVELS if _lines.isEnabledFor(_LEVELS[kind])}
    lines = [
        _line(each.note.entry, payload)
        for each, payload in zip(found, payloads, strict=True)
        if each.note.entry.class_ in said
    ]
    if lines:
        _lines.log(logging.WARNING, Lines(b"\n".join(lines).decode()))


def _line(entry: Entry, payload: bytes) -> bytes:
    """An entry as the log shows it: its time in words, and in the end what every line has."""
    at, rest = _encode(moment(entry.at)), payload[payload.index(b",") : -1]
    return b'{"at":%b%b%b' % (at, rest, _ENDINGS[entry.class_])
