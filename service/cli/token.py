"""`holdfast token`: makes, lists, revokes and converts the tokens of a tokens file.

A token goes to standard output, once, and nothing else does; what is to be read goes to standard
error. So `holdfast token add NAME > FILE` keeps the token and shows the rest.
"""

import re
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from service.cli.client import OK
from service.cli.options import command, config_file, given_or_set
from service.cli.path_completion import files
from service.principals.permissions import PERMISSIONS
from service.principals.principal import Principal
from service.principals.tokens_edit import Grant, add_token, convert_tokens, revoke_token
from service.principals.tokens_file import KEY, read_tokens
from streams.timestamps import rfc3339

_days = re.compile(r"(\d{1,4})d").fullmatch

MORE = f"""\
permissions: {", ".join(PERMISSIONS)}; none includes another
roles that stand for several:
  viewer: metrics, read; worker: metrics, read, work; operator: all five

A running service reads the file again when it changes, and on SIGHUP. Streams and waiting claims
of a token that is gone end then. With --kinds the permission `work` holds for these kinds only."""


def _list(_: click.Context, __: click.Parameter, text: str | None) -> tuple[str, ...]:
    parts = (part.strip() for part in (text or "").split(","))
    return tuple(dict.fromkeys(part for part in parts if part))


def _end(_: click.Context, __: click.Parameter, text: str | None) -> datetime | None:
    if text is None:
        return None
    if found := _days(text):
        return datetime.fromtimestamp(int(time.time()), UTC) + timedelta(days=int(found[1]))
    try:
        end = datetime.fromisoformat(text)
    except ValueError:
        end = None
    if end is None or end.tzinfo is None:
        raise click.BadParameter("must be days, as 90d, or a date and time with its offset")
    return end


_FILE = click.option(
    "--file", type=Path, metavar="FILE", shell_complete=files, help=f"the tokens file ({KEY})"
)


def _path(file: Path | None, config: Path | None) -> Path:
    return given_or_set(file, config, KEY, "name the tokens file with --file")


@command(
    "add",
    "make a token, print it once, and keep the SHA-256 of its secret",
    more=MORE,
    examples="holdfast token add alice --roles operator --file tokens.toml > alice.token\n"
    "holdfast token add gpu-1 --roles work --kinds render,encode --expires 90d",
)
@click.argument("name")
@click.option("--roles", callback=_list, required=True, metavar="LIST", help="what it permits")
@click.option("--kinds", callback=_list, metavar="LIST", help="of work (all)")
@click.option(
    "--expires", callback=_end, metavar="WHEN", help="90d, or 2030-01-31T00:00:00Z (never)"
)
@_FILE
@config_file
def _add(
    name: str,
    *,
    roles: tuple[str, ...],
    kinds: tuple[str, ...],
    expires: datetime | None,
    file: Path | None,
    config: Path | None,
) -> int:
    path = _path(file, config)
    grant = Grant(name=name, roles=roles, kinds=kinds, expires=expires)
    made = add_token(path, grant)
    _say(f"Token {made.id} for {grant.name} is in {path}. It is shown this once:")
    print(made.token)
    return OK


@command(
    "list",
    "show each token's id, name, roles, kinds and expiry",
    more=MORE,
    examples="holdfast token list",
)
@_FILE
@config_file
def _show(*, file: Path | None, config: Path | None) -> int:
    principals, _ = read_tokens(_path(file, config))
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
    end = rfc3339(principal.expires_at)
    return f"{end} (expired)" if principal.expires_at <= time.time() else end


@command(
    "revoke",
    "remove a token: what it has open ends within seconds",
    more=MORE,
    examples="holdfast token revoke 1f3a9c04",
)
@click.argument("id")
@_FILE
@config_file
def _revoke(id: str, *, file: Path | None, config: Path | None) -> int:
    path = _path(file, config)
    principal = revoke_token(path, id)
    _say(f"Token {principal.id} of {principal.name} is no longer in {path}.")
    return OK


@command(
    "convert",
    "replace lines `role name token` by new tokens",
    more=MORE,
    examples="holdfast token convert tokens",
)
@click.argument("file", type=Path, shell_complete=files)
def _convert(file: Path) -> int:
    made = convert_tokens(file)
    _say(
        f"{file} holds {len(made)} new tokens, shown this once. The old ones stood in clear "
        "and are no longer valid:"
    )
    for grant, token in made:
        print(f"{grant.roles[0]} {grant.name} {token.token}")
    return OK


def _say(line: str) -> None:
    print(line, file=sys.stderr)


token = click.Group(
    "token",
    [_add, _show, _revoke, _convert],
    help="Make, list, revoke and convert tokens.",
    short_help="make, list, revoke and convert tokens",
    context_settings={"help_option_names": ["-h", "--help"]},
)
