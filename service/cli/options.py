"""Flags that commands share, and the shape of their help."""

import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from service.cli.client import InstanceAddress
from service.cli.path_completion import files, folders
from service.settings.config import ConfigError
from service.settings.keys import value_at
from service.settings.loading import load_settings

URL_VARIABLE = "HOLDFAST_URL"  # both names are the worker kit's
TOKEN_VARIABLE = "HOLDFAST_TOKEN"  # noqa: S105 - its name

EXIT_CODES = """\
exit codes: 0 done; 1 it did not succeed; 2 asked wrongly (flag, file, setting);
3 something needed cannot be reached (server, port, data folder); 130 ended by Ctrl-C"""

SETTINGS_HELP = """\
Settings come from holdfast.toml (or --config FILE), then the environment
(HOLDFAST_HTTP__PORT=8080), then these flags. `check-config` prints them all."""


def command(
    name: str, says: str, *, more: str = "", examples: str, exit_codes: str = EXIT_CODES
) -> Callable[[Callable[..., int]], click.Command]:
    """A command whose help ends with examples and exit codes, each paragraph as it is written."""
    plural = "examples" if "\n" in examples else "example"
    listed = "\n".join(f"  {line}" for line in examples.splitlines())
    paragraphs = [*more.split("\n\n"), f"{plural}:\n{listed}", exit_codes]
    epilog = "\n\n".join(f"\b\n{each}" for each in paragraphs if each)
    return click.command(
        name,
        help=f"{says[0].upper()}{says[1:]}.",
        short_help=says,
        epilog=epilog,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


config_file = click.option(
    "--config", type=Path, metavar="FILE", shell_complete=files, help="a TOML file of settings"
)
_DATA_DIR = click.option(
    "--data-dir", metavar="DIR", shell_complete=folders, help="where data is kept (./data)"
)
_NATS_URL = click.option("--nats-url", metavar="URL", help="an existing server (embedded)")
_URL = click.option(
    "--url",
    envvar=URL_VARIABLE,
    help=f"the instance to ask (${URL_VARIABLE}, else http.host and http.port)",
)
_TOKEN = click.option(
    "--token",
    metavar="TOKEN",
    envvar=TOKEN_VARIABLE,
    help=f"a bearer token; safer in ${TOKEN_VARIABLE}, where `ps` does not show it",
)
_TOKEN_FILE = click.option(
    "--token-file",
    type=Path,
    metavar="FILE",
    shell_complete=files,
    help="a file that holds the bearer token",
)

_sendable = re.compile(r"[\x21-\x7e]+").fullmatch

as_json = click.option("--json", "as_json", is_flag=True, help="JSON for programs")


def token_of(token: str | None, token_file: Path | None) -> str | None:
    """The bearer token that was given; None if there is none, or it is empty.

    Raises ConfigError for a file that cannot be read, and for what cannot be sent as a token.
    """
    held = token if token_file is None else _held_by(token_file)
    if held and not _sendable(held):
        origin = "--token" if token_file is None else f"--token-file: {token_file}"
        raise ConfigError(f"{origin}: this is no token: it must be ASCII without spaces")
    return held or None


def _held_by(token_file: Path) -> str:
    try:
        return token_file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"--token-file: {token_file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"--token-file: {token_file}: not UTF-8 text: {error.reason}") from None


def instance_of(url: str | None, config: Path | None, token: str | None) -> InstanceAddress:
    """The instance to ask: at ``url``, or where the settings say that one listens.

    Raises ConfigError.
    """
    if url is None:
        http = load_settings(config_file=config).http
        host = f"[{http.host}]" if ":" in http.host else http.host
        url = f"{'https' if http.tls_cert else 'http'}://{host}:{http.port}"
    elif (parts := urlsplit(url)).scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(f"--url: {url!r} is no http://HOST:PORT or https://HOST:PORT")
    return InstanceAddress(url.rstrip("/"), token)


def given_or_set(given: Path | None, config: Path | None, key: str, advice: str) -> Path:
    """The path that was given, or that the setting ``key`` names. Raises ConfigError."""
    path = given or value_at(load_settings(config_file=config), key)
    if not isinstance(path, Path):
        raise ConfigError(f"{key} is not set: {advice}")
    return path


Run = Callable[..., int]
"""What a command does with what was given; answers the exit code."""


def with_token(run: Run) -> Run:
    """Flags for a token, which the command gets as its first argument."""

    @_TOKEN
    @_TOKEN_FILE
    @wraps(run)
    def given(*more: Any, token: str | None, token_file: Path | None, **named: Any) -> int:  # noqa: ANN401
        return run(token_of(token, token_file), *more, **named)

    return given


def with_instance(run: Run) -> Run:
    """Flags that name the instance; the command gets the instance as its first argument."""

    @_URL
    @config_file
    @with_token
    @wraps(run)
    def given(
        token: str | None,
        *more: Any,  # noqa: ANN401
        url: str | None,
        config: Path | None,
        **named: Any,  # noqa: ANN401
    ) -> int:
        return run(instance_of(url, config, token), *more, **named)

    return given


def with_settings(run: Run) -> Run:
    """Flags of settings; the command first gets what reads them, now or once more later."""

    @config_file
    @_DATA_DIR
    @_NATS_URL
    @wraps(run)
    def given(
        *more: Any,  # noqa: ANN401
        config: Path | None,
        data_dir: str | None,
        nats_url: str | None,
        **named: Any,  # noqa: ANN401
    ) -> int:
        flags = {
            "data_dir": data_dir,
            "nats.url": nats_url,
            "http.host": named.pop("host", None),
            "http.port": named.pop("port", None),
        }
        return run(lambda: load_settings(config_file=config, flags=flags), *more, **named)

    return given
