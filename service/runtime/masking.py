"""Known secrets, and the texts and JSON in which they are replaced by ``***``.

A process knows one set (`KNOWN`): the values of `secrets.*`, keys of model endpoints and passwords
of NATS. A value is also found as it stands inside of JSON, of JSON within JSON, and of a URL.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from threading import Lock
from typing import Any, cast
from urllib.parse import quote

import msgspec
from msgspec import Raw

from streams.json_values import UNREADABLE

MASK = "***"
SHORTEST = 8  # characters: a shorter value stands in too many texts by chance

_encode = msgspec.json.Encoder().encode


class Masking:
    """A set of secrets; all methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.values: frozenset[str] = frozenset()
        self._forms: frozenset[str] = frozenset()
        self._needles: tuple[tuple[str, bytes], ...] = ()
        self._pattern = re.compile(r"(?!)")

    def know(self, values: Iterable[str]) -> None:
        """Mask ``values`` from now on; those shorter than `SHORTEST` are left out."""
        new = frozenset(value for value in values if len(value) >= SHORTEST) - self.values
        if not new:
            return
        with self._lock:
            self.values |= new
            self._forms |= {form for value in new for form in _forms_of(value)}
            longest_first = sorted(self._forms, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))
            self._needles = tuple((form, form.encode()) for form in longest_first)

    def holds(self, content: bytes | str) -> bool:
        """Whether a secret stands in ``content``."""
        if isinstance(content, str):
            return any(form in content for form, _ in self._needles)
        return any(form in content for _, form in self._needles)

    def text(self, text: str) -> str:
        """``text`` with `MASK` for every secret."""
        return self._pattern.sub(MASK, text) if self.holds(text) else text

    def settled(self, text: str) -> tuple[str, str]:
        """The masked beginning of a growing text, and its end that may turn out to be a secret."""
        done: list[str] = []
        while True:
            held_at = self._begins_at(text)
            found = self._pattern.search(text) if self.holds(text) else None
            if found is None or found.start() >= held_at:
                return "".join((*done, text[:held_at])), text[held_at:]
            done += [text[: found.start()], MASK]
            text = text[found.end() :]

    def _begins_at(self, text: str) -> int:
        """From where ``text`` is the beginning of a secret; its length if nowhere."""
        starts = [len(text)]
        for form, _ in self._needles:
            at = text.find(form[0], max(len(text) - len(form) + 1, 0))
            while at >= 0 and not form.startswith(text[at:]):
                at = text.find(form[0], at + 1)
            if at >= 0:
                starts.append(at)
        return min(starts)

    def json(self, raw: bytes) -> bytes:
        """A JSON document with `MASK` in its texts; it stays JSON."""
        if not self.holds(raw):
            return raw
        try:
            return _encode(self.value(msgspec.json.decode(raw)))
        except UNREADABLE:
            return _encode(MASK)

    def documents(self, documents: Sequence[bytes]) -> Sequence[bytes]:
        """`json` of each document; all are looked through in one go, for few hold a secret."""
        if not self.holds(b"\n".join(documents)):
            return documents
        return [self.json(each) for each in documents]

    def value(self, value: Any) -> Any:  # noqa: ANN401 - any JSON
        """Decoded JSON with `MASK` in its texts and names; a number that is a secret is one."""
        match value:
            case str():
                return self.text(value)
            case list():
                return [self.value(each) for each in cast("list[Any]", value)]
            case Mapping():
                pairs = cast("Mapping[str, Any]", value).items()
                return {self.text(name): self.value(each) for name, each in pairs}
            case bool() | None:
                return value
            case _:
                return MASK if self.holds(str(value)) else value

    def struct(self, struct: msgspec.Struct, keep: frozenset[str] = frozenset()) -> Any:  # noqa: ANN401
        """A Struct with `MASK` in its texts and JSON; fields in ``keep`` stay as they are."""
        if not self._needles:
            return struct
        changed = {
            name: masked
            for name in struct.__struct_fields__
            if name not in keep
            and (masked := self._field(value := getattr(struct, name))) is not value
        }
        return msgspec.structs.replace(struct, **changed) if changed else struct

    def _field(self, value: object) -> object:
        match value:
            case str():
                return self.text(value) if self.holds(value) else value
            case Raw():
                content = bytes(value)
                return Raw(self.json(content)) if self.holds(content) else value
            case msgspec.Struct():
                return self.struct(value)
            case _:
                return value


class GrowingText:
    """A text that comes in pieces, in any of which a secret may begin or end."""

    def __init__(self, masking: "Masking | None" = None) -> None:
        self._masking = masking or KNOWN
        self._held = ""

    def add(self, piece: str) -> str:
        """What can be shown of the text so far, after what was shown before."""
        shown, self._held = self._masking.settled(self._held + piece)
        return shown

    def end(self) -> str:
        """The rest: the text ends here."""
        rest, self._held = self._masking.text(self._held), ""
        return rest


def _forms_of(value: str) -> set[str]:
    """How a value is written in text, in JSON, in JSON within JSON, and in a URL."""
    once = json.dumps(value)[1:-1]
    plain = json.dumps(value, ensure_ascii=False)[1:-1]
    return {value, once, plain, json.dumps(once)[1:-1], quote(value), quote(value, safe="")}


KNOWN = Masking()
"""What this process knows."""
