"""Which handler does which kind of task: the built-in ones and those of the configured modules."""

import importlib
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import cast

from holdfast_worker.handler import AnyHandler, Handler
from service.executor.handlers.command import command_handler
from service.settings.config import ConfigError

BUILT_IN = (
    "service.executor.handlers.echo",
    "service.executor.handlers.sleep",
    "service.executor.handlers.http",
    "service.executor.handlers.chat",
)


def load_handlers(
    modules: Iterable[str] = (), programs: Iterable[str] = ()
) -> dict[str, AnyHandler]:
    """Import the built-in and the named modules; every kind with its handler.

    ``programs`` are those that ``command`` may start. Raises `ConfigError` naming a program that
    does not exist, the module that cannot be imported and why, one without handlers, or a kind
    that two functions claim.
    """
    command = command_handler(programs)
    handlers: dict[str, AnyHandler] = {command.kind: command}
    for module_name in (*BUILT_IN, *modules):
        for found in _handlers_in(_imported(module_name)):
            known = handlers.setdefault(found.kind, found)
            if known is not found:
                raise ConfigError(
                    f"executor.handlers: the kind {found.kind!r} has two handlers, "
                    f"{known.name} and {found.name}"
                )
    return handlers


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
