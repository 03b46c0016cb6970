"""What a shell offers after TAB where a command wants a plan or a task: ids of the instance."""

from collections.abc import Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem
from msgspec.structs import replace

from service.cli.asking import AskedInVain, ask
from service.cli.client import InstanceAddress
from service.cli.options import instance_of, token_of
from service.settings.config import ConfigError

PATIENCE_S = 1.0  # the user waits at the prompt
LISTED = 200

Json = dict[str, Any]
Offered = list[CompletionItem]


def plans(ctx: click.Context, param: click.Parameter, incomplete: str) -> Offered:
    """Ids of plans that begin so, the newest first; none if the instance cannot be asked."""
    del param
    query = {"text": incomplete or None, "limit": LISTED}
    found = _items(ctx, "/v1/plans", query)
    return _offered(((each["plan_id"], each["status"]) for each in found), incomplete)


def places(ctx: click.Context, param: click.Parameter, incomplete: str) -> Offered:
    """``PLAN``, and after a slash ``PLAN/TASK``."""
    plan, slash, _ = incomplete.partition("/")
    if not slash:
        return plans(ctx, param, incomplete)
    found = _items(ctx, "/v1/tasks", {"plan_id": plan, "limit": LISTED})
    return _offered(((f"{plan}/{each['task_id']}", each["status"]) for each in found), incomplete)


def _offered(found: Iterable[tuple[str, str]], incomplete: str) -> Offered:
    return [CompletionItem(name, help=says) for name, says in found if name.startswith(incomplete)]


def _items(ctx: click.Context, path: str, query: Json) -> list[Json]:
    try:
        return list(ask(_instance(ctx.params), path, query=query)["items"])
    except (AskedInVain, ConfigError, LookupError, TypeError):  # there is no place for an error
        return []


def _instance(given: Json) -> InstanceAddress:
    """The instance that the flags before the cursor name. Raises ConfigError."""
    token = token_of(given.get("token"), given.get("token_file"))
    found = instance_of(given.get("url"), given.get("config"), token)
    return replace(found, answer_s=PATIENCE_S)
