"""Asks about one plan or task; where it does not exist, the error names similar ids."""

from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from typing import Any

from service.cli.asking import AskedInVain, ask, path_of
from service.cli.client import InstanceAddress

MOST = 3
LISTED = 200  # of the newest plans


def ask_about(
    instance: InstanceAddress,
    plan: str,
    task: str | None,
    then: str = "",
    *,
    query: dict[str, Any] | None = None,
    body: dict[str, Any] | None = None,
) -> Any:  # noqa: ANN401 - what JSON holds
    """GET the plan's or task's path with ``then`` behind it, or POST to it. Raises AskedInVain."""
    try:
        return ask(instance, path_of(plan, task) + then, query=query, body=body)
    except AskedInVain as error:
        if not error.missing:
            raise
        hint = _hint(instance, plan, task)
        raise AskedInVain(f"{error}{hint}", error.code) from None


def _hint(instance: InstanceAddress, plan: str, task: str | None) -> str:
    near: list[str] = []
    with suppress(AskedInVain):  # a hint is no answer: without it the error is as true
        known = _plans(instance, plan)
        if plan not in known:
            near = _near(plan, known)
        elif task is not None:
            near = _near(
                task, [each["task_id"] for each in ask(instance, path_of(plan, None))["tasks"]]
            )
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def _plans(instance: InstanceAddress, plan: str) -> list[str]:
    """Plans with this text in their id or name, then the newest."""
    wishes: Iterable[dict[str, Any]] = ({"text": plan, "limit": MOST}, {"limit": LISTED})
    pages = [ask(instance, "/v1/plans", query=wish)["items"] for wish in wishes]
    return list(dict.fromkeys(each["plan_id"] for page in pages for each in page))


def _near(wanted: str, known: list[str]) -> list[str]:
    begun = [each for each in known if each.startswith(wanted)]
    return list(dict.fromkeys([*get_close_matches(wanted, known, MOST), *begun]))[:MOST]
