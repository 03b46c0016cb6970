"""The five permissions that a token can give, and the role names that stand for several of them."""

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

Permission = Literal["metrics", "read", "work", "submit", "operate"]

PERMISSIONS: tuple[Permission, ...] = get_args(Permission)
"""`metrics`: /metrics and /actuator only. `work`: claims and reports. None includes another."""

ROLES: Mapping[str, frozenset[Permission]] = {
    "viewer": frozenset({"metrics", "read"}),
    "worker": frozenset({"metrics", "read", "work"}),
    "operator": frozenset(PERMISSIONS),
}
"""The role names of the first tokens files."""

ROLE_NAMES = (*PERMISSIONS, *ROLES)


def permissions_of(roles: Iterable[str]) -> frozenset[Permission]:
    """All permissions that ``roles`` give. Raises KeyError for a name that is none."""
    given: set[Permission] = set()
    for role in roles:
        given |= {role} if role in PERMISSIONS else ROLES[role]
    return frozenset(given)
