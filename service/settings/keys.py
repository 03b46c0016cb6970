"""The settings by their dotted keys: types, values, variables, and how messages show them."""

import re
import reprlib
from collections.abc import Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any, cast, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from service.settings.config import ConfigError, Settings
from streams.jetstream.servers import without_password

ENVIRONMENT_PREFIX = "HOLDFAST_"

_QUOTE = reprlib.Repr()
_QUOTE.maxstring = _QUOTE.maxother = 200  # a refusal stays readable, whatever it quotes


def _leaves(section: type[Struct], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each dotted key below `section` with its declared type."""
    for name, declared in get_type_hints(section, include_extras=True).items():
        if isinstance(declared, type) and issubclass(declared, Struct):
            yield from _leaves(declared, f"{prefix}{name}.")
        elif name != "origins":
            yield f"{prefix}{name}", declared


KEYS: Mapping[str, Any] = dict(_leaves(Settings))
"""Every setting's dotted key and declared type."""


def variable_name(key: str) -> str:
    """The environment variable of a dotted key."""
    return ENVIRONMENT_PREFIX + key.upper().replace(".", "__")


def value_at(settings: Settings, key: str) -> object:
    """The value of a dotted key."""
    value: object = reduce(getattr, key.split("."), settings)
    return value


def changed_keys(old: Settings, new: Settings) -> list[str]:
    """The keys whose values differ, but those that are made anew for each process."""
    return [
        key
        for key in KEYS
        if value_at(old, key) != value_at(new, key)
        and not (key == "executor.instance_id" and key not in new.origins)
    ]


# -- in messages ------------------------------------------------------------------------------


class Setting(Struct, frozen=True):
    """One effective setting, as `holdfast check-config` prints it."""

    key: str
    value: object
    origin: str

    def holds_secret(self, unmasked: object) -> bool:
        """Whether this shows less than ``unmasked``, the value itself."""
        return _plain(self.value) != _plain(unmasked)


def refused(setting: Setting, reason: str) -> ConfigError:
    """The error for a value that cannot be used; ``reason`` says what is allowed."""
    return ConfigError(f"{quoted(setting)}: {reason}")


def quoted(setting: Setting) -> str:
    """The setting for a message: key, value (cut, without a password) and origin.

    Of a table, and of a key that does not exist, only the name: the value may be a secret in a
    wrong place.
    """
    if setting.key not in KEYS or is_table(KEYS[setting.key]):
        return f"{setting.key} (from {setting.origin})"
    value = shown(setting.value)
    told = _QUOTE.repr(str(value) if isinstance(value, Path) else value)
    return f"{setting.key} = {told} (from {setting.origin})"


def shown(value: object) -> object:
    """The value as it may be printed: without a URL's password, query string and fragment."""
    match value:
        case str():
            is_url = "://" in value or "@" in value  # one that lacks its scheme, too
            return _query.sub(r"\1***", without_password(value)) if is_url else value
        case dict():
            pairs = cast("dict[str, object]", value).items()
            return {name: shown(_plain(each)) for name, each in pairs}
        case list():
            return [shown(each) for each in cast("list[object]", value)]
        case tuple():
            return tuple(shown(each) for each in cast("tuple[object, ...]", value))
        case _:
            return value


def _plain(value: object) -> object:
    """A table's entry as dicts, lists, texts and numbers."""
    return msgspec.to_builtins(value, enc_hook=str)  # a path has no other form


_query = re.compile(r"([?#]).*", re.DOTALL)


def is_table(declared: Any) -> bool:  # noqa: ANN401
    """Whether a key's values are named by the settings themselves: `[secrets.NAME]`."""
    return get_origin(declared) is dict


def described(settings: Settings) -> list[Setting]:
    """Every key with its effective value and origin, in the order declared, without secrets."""
    return [
        Setting(key, shown(value_at(settings, key)), settings.origins.get(key, "default"))
        for key in KEYS
    ]
