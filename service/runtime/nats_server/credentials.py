"""The embedded server's users: generated once, kept in files that only the service's account reads.

`<data_dir>/nats/server.conf` is what the server is started with: nats.conf and the users. Beside
it, `service.json`, `reader.json` and the others of `USERS` are contexts of the `nats` command line
(`nats --context DATA_DIR/nats/reader.json stream info PLANS`), and Holdfast reads them as well.
"""

import os
import secrets
from pathlib import Path
from urllib.parse import quote, urlsplit

import msgspec

from service.runtime.private_files import open_to_others, read_private, write_private
from streams.jetstream.permissions import (
    MAINTENANCE,
    READER,
    RETENTION,
    SERVICE,
    SERVICE_ACCOUNT,
    accounts,
)
from streams.json_values import UNREADABLE

SERVER_FILE = "server.conf"
USERS = (SERVICE, READER, MAINTENANCE, RETENTION)
PASSWORD_BYTES = 32


class Context(msgspec.Struct, frozen=True):
    """A user of the embedded server, in the form of a context file of the `nats` command line."""

    url: str
    user: str
    password: str
    description: str = ""

    @property
    def with_credentials(self) -> str:
        """The URL with user and password in it; not for printing."""
        scheme, _, address = self.url.partition("://")
        return f"{scheme}://{quote(self.user)}:{quote(self.password)}@{address}"


def prepare(folder: Path, configuration: Path, port: int) -> dict[str, Context]:
    """The users by name, made where they are missing, and `SERVER_FILE` for them. Raises OSError.

    ``folder`` is the server's store, which no server has open. A log that was written before
    there were users moves into the service's account.
    """
    _move_old_log(folder)
    contexts = {user: read_context(folder, user) or _new_context(user) for user in USERS}
    passwords = {user: context.password for user, context in contexts.items()}
    users = msgspec.json.format(msgspec.json.encode(accounts(passwords))).decode()
    # The server takes what it includes as relative to the including file, whatever it looks like.
    base = os.path.relpath(configuration.resolve(), folder.resolve())
    text = f"include {msgspec.json.encode(base).decode()}\naccounts: {users}\n"
    _keep(folder / SERVER_FILE, text.encode())
    return write_contexts(folder, contexts, port)


def write_contexts(folder: Path, contexts: dict[str, Context], port: int) -> dict[str, Context]:
    """Write the users down with the address of the server. Raises OSError."""
    url = f"nats://127.0.0.1:{port}"
    contexts = {
        user: msgspec.structs.replace(context, url=url) for user, context in contexts.items()
    }
    for user, context in contexts.items():
        _keep(_context_file(folder, user), msgspec.json.encode(context) + b"\n")
    return contexts


def _keep(path: Path, content: bytes) -> None:
    """Write the file unless it is the same: a server must restart on a full disk, too."""
    try:
        if read_private(path) == content and open_to_others(path) is None:
            return
    except OSError:
        pass
    write_private(path, content)


def read_context(folder: Path, user: str) -> Context | None:
    """A user of the embedded server whose store is ``folder``; None where there is none."""
    try:
        context = msgspec.json.decode(read_private(_context_file(folder, user)), type=Context)
    except (OSError, *UNREADABLE):
        return None
    return context if context.user == user and context.password else None


def user_url(folder: Path, address: str, user: str) -> str:
    """``address`` with the credentials of ``user``, if it is that of the server of ``folder``."""
    context = read_context(folder, user)
    if context is None or urlsplit(context.url).netloc != urlsplit(address).netloc:
        return address
    return context.with_credentials


def _new_context(user: str) -> Context:
    return Context("", user, secrets.token_urlsafe(PASSWORD_BYTES), f"Holdfast's {user}")


def _context_file(folder: Path, user: str) -> Path:
    return folder / f"{user}.json"


def _move_old_log(folder: Path) -> None:
    """A server without users keeps its streams under ``$G``, one with accounts under their name."""
    old, new = folder / "jetstream" / "$G", folder / "jetstream" / SERVICE_ACCOUNT
    if old.is_dir() and not new.exists():
        old.rename(new)
