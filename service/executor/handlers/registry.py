"""Which handler does which kind of task: the built-in ones and those of the configured modules."""

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import cast

from msgspec.structs import replace

from holdfast_worker.handler import AnyHandler, Handler
from service.executor.handlers.chat import chat_handler
from service.executor.handlers.chat.endpoints import Endpoints
from service.executor.handlers.command import command_handler
from service.executor.handlers.http import http_handler
from service.executor.handlers.reach import Reach
from service.executor.handlers.secrets import Secrets
from service.settings.config import ConfigError, ExecutorSettings

BUILT_IN = ("service.executor.handlers.echo", "service.executor.handlers.sleep")


def load_handlers(
    executor: ExecutorSettings | None = None, secrets: Secrets | None = None
) -> dict[str, AnyHandler]:
    """Make the built-in handlers and import the named modules; every kind with its handler.

    Raises `ConfigError` naming a command line, network or endpoint that cannot be used, the module
    that cannot be imported and why, one without handlers, or a kind that two functions claim.
    """
    executor = executor or ExecutorSettings()
    handlers = {each.kind: each for each in _configured(executor, secrets or Secrets())}
    for module_name in (*BUILT_IN, *executor.handlers):
        for found in _handlers_in(_imported(module_name)):
            known = handlers.setdefault(found.kind, found)
            if known is not found:
                raise ConfigError(
                    f"executor.handlers: the kind {found.kind!r} has two handlers, "
                    f"{known.name} and {found.name}"
                )
    return handlers


def load_what_can_be(
    executor: ExecutorSettings, secrets: Secrets
) -> tuple[dict[str, AnyHandler], list[str]]:
    """As `load_handlers`, but without the modules that this process cannot use, and their errors.

    Raises `ConfigError` for a command line, network or endpoint that cannot be used.
    """
    handlers = load_handlers(replace(executor, handlers=()), secrets)
    errors: list[str] = []
    for name in executor.handlers:
        try:
            handlers |= {each.kind: each for each in _handlers_in(_imported(name))}
        except ConfigError as error:
            errors.append(str(error))
    return handlers, errors


def _configured(executor: ExecutorSettings, secrets: Secrets) -> list[AnyHandler]:
    """The built-in handlers that depend on the settings."""
    try:
        reach = Reach.of(executor.web.allow_networks)
    except ValueError as error:
        raise ConfigError(f"executor.web.allow_networks: {error}") from None
    return [
        command_handler(executor.command, secrets),
        http_handler(reach, secrets),
        chat_handler(Endpoints(executor.chat, secrets, reach)),
    ]


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ConfigError(
            f"executor.handlers: the module {name!r} cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from error


def _handlers_in(module: ModuleType) -> list[AnyHandler]:
    contents: Mapping[str, object] = vars(module)
    found = [cast("AnyHandler", value) for value in contents.values() if isinstance(value, Handler)]
    if not found:
        raise ConfigError(
            f"executor.handlers: the module {module.__name__!r} has no @handler and no @worker.task"
        )
    return found
