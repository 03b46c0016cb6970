"""Secrets by name: where a value comes from, and the only places to which a handler may send it."""

import os
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from holdfast_worker.failures import TaskFailed
from service.runtime.masking import KNOWN, SHORTEST, Masking
from service.settings.config import ConfigError, SecretSettings

SecretName = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class SecretRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an input says instead of a secret; ``prefix`` stands before the value."""

    secret: SecretName
    prefix: Annotated[str, msgspec.Meta(max_length=64)] = ""


class Secrets:
    """The secrets of the settings, read where they are used, so that a new value counts at once."""

    def __init__(
        self, settings: Mapping[str, SecretSettings] | None = None, masking: Masking = KNOWN
    ) -> None:
        """Raises `ConfigError` for a value that is too short to be masked."""
        self._settings = settings or {}
        self._masking = masking
        self._allowed = {
            name: frozenset(map(origin_of, each.for_)) for name, each in self._settings.items()
        }
        for name, each in self._settings.items():
            value = _read(each)
            if value and len(value) < SHORTEST:
                raise ConfigError(
                    f"secrets.{name}: a value of fewer than {SHORTEST} characters cannot be masked"
                )
            masking.know([value])

    def resolved(self, ref: SecretRef, destination: str) -> str:
        """The value that ``ref`` names, for a URL or ``command:NAME``; raises `TaskFailed`."""
        each = self._settings.get(ref.secret)
        if each is None:
            known = ", ".join(sorted(self._settings)) or "none"
            raise _refused(f"there is no secret {ref.secret!r} in the settings (known: {known})")
        if origin_of(destination) not in self._allowed[ref.secret]:
            raise _refused(
                f"the secret {ref.secret!r} is not for {origin_of(destination)}: "
                f"secrets.{ref.secret}.for names where it may be sent"
            )
        value = _read(each)
        if not value or not value.isascii() or not value.isprintable():
            how = "holds what cannot be a key" if value else "has no value where this runs"
            raise _refused(f"the secret {ref.secret!r} {how}")
        self._masking.know([value])
        return ref.prefix + value


def origin_of(destination: str) -> str:
    """Scheme, host and port of a URL; ``command:NAME`` is its own origin."""
    if "://" not in destination:
        return destination
    parts = urlsplit(destination)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    host = (parts.hostname or "").rstrip(".")
    return f"{parts.scheme}://[{host}]:{port}" if ":" in host else f"{parts.scheme}://{host}:{port}"


def _read(secret: SecretSettings) -> str:
    """The value, "" where there is none."""
    if secret.file is None:
        return os.environ.get(secret.env, "").strip()
    try:
        return secret.file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _refused(reason: str) -> TaskFailed:
    return TaskFailed("bad_input", reason, retryable=False)
