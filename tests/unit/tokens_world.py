"""Tokens for tests: a tokens file, and the tokens that fit it."""

from datetime import UTC, datetime
from pathlib import Path

from service.principals.tokens_edit import Grant, add_token

PAST = datetime(2020, 1, 1, tzinfo=UTC)


def give(
    path: Path,
    name: str,
    *roles: str,
    kinds: tuple[str, ...] = (),
    expires: datetime | None = None,
) -> str:
    """A new token in the file at ``path``, which is made if it is missing."""
    grant = Grant(name=name, roles=roles, kinds=kinds, expires=expires)
    return add_token(path, grant).token


def bearer(token: str) -> dict[str, str]:
    """The header that shows a token."""
    return {"Authorization": f"Bearer {token}"}
