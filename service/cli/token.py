"""`holdfast token`: makes, lists, revokes and converts the tokens of a tokens file.

A token goes to standard output, once, and nothing else does; what is to be read goes to standard
error. So `holdfast token add NAME > FILE` keeps the token and shows the rest.
"""

import argparse
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from service.cli.client import OK
from service.principals.permissions import PERMISSIONS
from service.principals.principal import Principal
from service.principals.tokens_edit import Grant, add_token, convert_tokens, revoke_token
from service.principals.tokens_file import KEY, read_tokens
from service.settings.config import ConfigError
from service.settings.loading import load_settings

_days = re.compile(r"(\d{1,4})d").fullmatch

MORE = f"""\
permissions: {", ".join(PERMISSIONS)}; none includes another
roles that stand for several:
  viewer: metrics, read; worker: metrics, read, work; operator: all five

A running service reads the file again when it changes, and on SIGHUP. Streams and waiting claims
of a token that is gone end then. With --kinds the permission `work` holds for these kinds only.

examples:
  holdfast token add alice --roles operator --file tokens.toml > alice.token
  holdfast token add gpu-1 --roles work --kinds render,encode --expires 90d
  holdfast token list
  holdfast token revoke 1f3a9c04
  holdfast token convert tokens"""


class Command(Protocol):
    """Adds one command to a parser's; see `service.cli.main`."""

    def __call__(
        self, name: str, run: Callable[[argparse.Namespace], int], says: str
    ) -> argparse.ArgumentParser:
        """A parser for ``holdfast token NAME``."""
        ...


def add_commands(command: Command) -> None:
    """The four commands with their flags."""
    add = command("add", _add, "make a token, print it once, and keep the SHA-256 of its secret")
    add.add_argument("name", help="whose it is; owners of leases begin with it")
    add.add_argument("--roles", type=_list, required=True, metavar="LIST", help="what it permits")
    add.add_argument("--kinds", type=_list, default=(), metavar="LIST", help="of work (all)")
    add.add_argument(
        "--expires", type=_end, metavar="WHEN", help="90d, or 2030-01-31T00:00:00Z (never)"
    )
    listing = command("list", _show, "show each token's id, name, roles, kinds and expiry")
    revoke = command("revoke", _revoke, "remove a token: what it has open ends within seconds")
    revoke.add_argument("id", help="as `holdfast token list` shows it")
    for each in (add, listing, revoke):
        each.add_argument("--file", type=Path, metavar="FILE", help=f"the tokens file ({KEY})")
        each.add_argument("--config", type=Path, metavar="FILE", help="a TOML file of settings")
    convert = command("convert", _convert, "replace lines `role name token` by new tokens")
    convert.add_argument("file", type=Path, metavar="FILE", help="the file; it is replaced")


def _list(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _end(text: str) -> datetime:
    if found := _days(text):
        return datetime.fromtimestamp(int(time.time()), UTC) + timedelta(days=int(found[1]))
    try:
        end = datetime.fromisoformat(text)
    except ValueError:
        end = None
    if end is None or end.tzinfo is None:
        raise argparse.ArgumentTypeError("must be days, as 90d, or a date and time with its offset")
    return end


def _file(given: argparse.Namespace) -> Path:
    if given.file is not None:
        return given.file
    path = load_settings(config_file=given.config).auth.tokens_file
    if path is None:
        raise ConfigError(f"{KEY} is not set: name the tokens file with --file")
    return path


def _add(given: argparse.Namespace) -> int:
    path = _file(given)
    grant = Grant(name=given.name, roles=given.roles, kinds=given.kinds, expires=given.expires)
    made = add_token(path, grant)
    _say(f"Token {made.id} for {grant.name} is in {path}. It is shown this once:")
    print(made.token)
    return OK


def _show(given: argparse.Namespace) -> int:
    principals, _ = read_tokens(_file(given))
    rows = [("ID", "NAME", "PERMISSIONS", "KINDS", "EXPIRES"), *map(_row, principals.values())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    return OK


def _row(principal: Principal) -> tuple[str, ...]:
    permissions = [each for each in PERMISSIONS if each in principal.permissions]
    kinds = "all" if principal.kinds is None else ",".join(sorted(principal.kinds))
    return (principal.id, principal.name, ",".join(permissions), kinds, _when(principal))


def _when(principal: Principal) -> str:
    if principal.expires_at is None:
        return "never"
    end = datetime.fromtimestamp(principal.expires_at, UTC).isoformat().replace("+00:00", "Z")
    return f"{end} (expired)" if principal.expires_at <= time.time() else end


def _revoke(given: argparse.Namespace) -> int:
    path = _file(given)
    principal = revoke_token(path, given.id)
    _say(f"Token {principal.id} of {principal.name} is no longer in {path}.")
    return OK


def _convert(given: argparse.Namespace) -> int:
    made = convert_tokens(given.file)
    _say(
        f"{given.file} holds {len(made)} new tokens, shown this once. The old ones stood in clear "
        "and are no longer valid:"
    )
    for grant, token in made:
        print(f"{grant.roles[0]} {grant.name} {token.token}")
    return OK


def _say(line: str) -> None:
    print(line, file=sys.stderr)
