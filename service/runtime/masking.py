"""Known secrets, and the texts and JSON in which they are replaced by ``***``.

A process knows one set (`KNOWN`): the values of `secrets.*`, keys of model endpoints and passwords
of NATS. A value is also found as it stands inside of JSON, of JSON within JSON, and of a URL.
"""

import json
import re
from collections.abc import Iterable, Mapping
from threading import Lock
from typing import Any, cast
from urllib.parse import quote

import msgspec
from msgspec import Raw

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

    def json(self, raw: bytes) -> bytes:
        """A JSON document with `MASK` in its texts; it stays JSON."""
        if not self.holds(raw):
            return raw
        try:
            return _encode(self.value(msgspec.json.decode(raw)))
        except (msgspec.DecodeError, RecursionError):
            return _encode(MASK)

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


def _forms_of(value: str) -> set[str]:
    """How a value is written in text, in JSON, in JSON within JSON, and in a URL."""
    once = json.dumps(value)[1:-1]
    plain = json.dumps(value, ensure_ascii=False)[1:-1]
    return {value, once, plain, json.dumps(once)[1:-1], quote(value), quote(value, safe="")}


KNOWN = Masking()
"""What this process knows."""
