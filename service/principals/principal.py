"""A principal: the holder of one token, and what the holder may do."""

import re

import msgspec

from service.principals.permissions import Permission

NAME_WORDS = "1 to 64 letters, digits, or any of . @ _ -"
is_name = re.compile(r"[A-Za-z0-9._@-]{1,64}").fullmatch
"""Names have no "/", which ends a name in an owner, and no ":", which an executor's id has."""


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """The holder of the token ``id``.

    ``digest`` is the SHA-256 of the token's secret. ``kinds`` None means every kind of task.
    ``expires_at`` is in seconds since the epoch; None: never.
    """

    id: str
    digest: bytes
    name: str
    permissions: frozenset[Permission]
    kinds: frozenset[str] | None = None
    expires_at: float | None = None

    def __repr__(self) -> str:
        """Name and id only."""
        return f"Principal({self.name!r}, token {self.id})"

    def is_owner(self, owner: str) -> bool:
        """Whether ``owner`` is this principal's name, or begins with the name and "/"."""
        return owner == self.name or owner.startswith(f"{self.name}/")

    def may_work_on(self, kind: str) -> bool:
        """Whether the token's kinds, if it names any, contain ``kind``."""
        return self.kinds is None or kind in self.kinds
