"""A worker speaks for itself only: as an owner of its token's name, on tasks of its token's kinds.

The guard of each route asks this for the route's path, and `service.http.strict_json` for each body
that it reads, so every route that names an owner is checked. Without tokens there is no principal,
and any owner may be named.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from service.http.problems import RequestRefused
from service.principals.principal import Principal
from streams.plan.state import Plan

Knows = Callable[[str], Plan | None]
"""The plan of an id if it is in memory."""
LoadPlan = Callable[[str], Awaitable[Plan | None]]
"""The plan of an id, from memory or from the log. Raises LogUnavailable."""


async def check_path(principal: Principal, path: Mapping[str, Any], load: LoadPlan) -> None:
    """Refuse an owner or a task in a route's path. Raises RequestRefused (forbidden)."""
    if "owner" in path:
        _check_owner(principal, path["owner"])
    if principal.kinds is not None:
        for plan_id, task_id in _place(path.get):
            # The task may be claimed by this request, so its plan must be known.
            _check_kind(principal, await load(plan_id), task_id)


def checked_body(principal: Principal, body: Any, knows: Knows) -> Any:  # noqa: ANN401
    """The body as the principal may mean it: a claim for any kind is for the token's kinds.

    Raises RequestRefused (forbidden).
    """
    owner: object = getattr(body, "owner", None)
    if not isinstance(owner, str):
        return body
    _check_owner(principal, owner)
    if principal.kinds is None:
        return body
    for plan_id, task_id in _places_in(body):
        # A report changes only what its owner holds; a plan that is not in memory has ended.
        _check_kind(principal, knows(plan_id), task_id)
    return _of_kinds(principal.kinds, body)


def _check_owner(principal: Principal, owner: str) -> None:
    if not principal.is_owner(owner):
        name = principal.name
        raise RequestRefused(
            "forbidden",
            f"the token's name is '{name}': its owners are '{name}' and all that begin with "
            f"'{name}/', and '{owner}' is none of them",
        )


def _of_kinds(kinds: frozenset[str], body: Any) -> Any:  # noqa: ANN401 - a body
    """The body with the token's kinds where it may name kinds and does not."""
    asked: object = getattr(body, "kinds", msgspec.UNSET)
    if asked is None:
        return replace(body, kinds=tuple(sorted(kinds)))
    if isinstance(asked, tuple) and not kinds.issuperset(asked):  # pyright: ignore[reportUnknownArgumentType]
        raise _other_kinds(kinds, "kinds names others")
    return body


def _check_kind(principal: Principal, plan: Plan | None, task_id: str) -> None:
    task = plan.tasks.get(task_id) if plan is not None else None
    if plan is not None and task is not None and not principal.may_work_on(task.spec.kind):
        kinds = principal.kinds or frozenset()
        raise _other_kinds(kinds, f"the task '{plan.plan_id}/{task_id}' has another")


def _places_in(body: msgspec.Struct) -> Iterator[tuple[str, str]]:
    """The plan and task of each item in the body's lists."""
    for name in body.__struct_fields__:
        items: object = getattr(body, name)
        for item in items if isinstance(items, tuple) else ():  # pyright: ignore[reportUnknownVariableType]
            yield from _place(lambda each, item=item: getattr(item, each, None))  # type: ignore[misc]


def _place(get: Callable[[str], object]) -> Iterator[tuple[str, str]]:
    plan_id, task_id = get("plan_id"), get("task_id")
    if isinstance(plan_id, str) and isinstance(task_id, str):
        yield plan_id, task_id


def _other_kinds(kinds: frozenset[str], what: str) -> RequestRefused:
    return RequestRefused(
        "forbidden", f"the token works on the kinds {', '.join(sorted(kinds))} only; {what}"
    )
