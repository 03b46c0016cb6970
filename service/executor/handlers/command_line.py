"""A named command line of the settings: its program, what its parameters may be, and its bounds."""

import os
import pwd
import re
import shutil
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from service.settings.config import CommandSettings, ConfigError

MEGABYTE = 1024 * 1024
ONE_LINE = r"[^\x00-\x1f\x7f]*"  # the pattern of a parameter that the settings give none

_placeholder = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


class CommandLine:
    """One command line, checked at the start. Raises `ConfigError` naming what cannot be used."""

    def __init__(self, name: str, settings: CommandSettings) -> None:
        self._name = name
        self._settings = settings
        self.program = self._located(settings.argv[0])
        found = (_placeholder.findall(each) for each in settings.argv[1:])
        self._names = frozenset(name for each in found for name in each)
        if unused := sorted(settings.parameters.keys() - self._names):
            raise self._unusable(f"no argument holds {{{unused[0]}}}")
        self._patterns = {
            name: self._compiled(settings.parameters.get(name, ONE_LINE)) for name in self._names
        }
        self._account = self._found_account(settings.user)

    def complaint(self, parameters: Mapping[str, str]) -> str | None:
        """Which parameter does not fit; None: all do."""
        if missing := sorted(self._names - parameters.keys()):
            return f"parameters: {self._name!r} needs {missing[0]!r}"
        for name, value in parameters.items():
            if name not in self._names:
                return f"parameters: {self._name!r} has no {name[:64]!r}"
            if value.startswith("-"):
                return f"parameters.{name}: must not begin with a dash"
            if "\0" in value or not self._patterns[name].fullmatch(value):
                return f"parameters.{name}: does not match {self._patterns[name].pattern}"
        return None

    def arguments(self, parameters: Mapping[str, str]) -> tuple[str, ...]:
        """Name and arguments of the program, for parameters without a `complaint`."""
        name, *rest = self._settings.argv
        return name, *(_placeholder.sub(lambda at: parameters[at[1]], each) for each in rest)

    def bounds(self, folder: str) -> str:
        """What the guardian gets, a line each: see `guardian._bound`."""
        settings = self._settings
        bounds: dict[str, object] = {
            "folder": folder,
            "memory": settings.memory_mb * MEGABYTE,
            "open_files": settings.open_files,
            "file": settings.file_mb * MEGABYTE,
            "cpu": settings.cpu_s,
            "processes": settings.processes,
        }
        if self._account is not None:
            bounds |= {"uid": self._account[0], "gid": self._account[1]}
        return "\n".join(f"{name}={value}" for name, value in bounds.items())

    @contextmanager
    def folder(self) -> Generator[str]:
        """An empty folder of the program's own, which is removed with all that it holds."""
        folder = tempfile.mkdtemp(prefix="holdfast-")
        try:
            if self._account is not None:
                os.chown(folder, *self._account)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _located(self, program: str) -> str:
        if "/" in program and not Path(program).is_absolute():
            raise self._unusable(f"{program!r} must be a name without slashes or an absolute path")
        found = shutil.which(program)
        if found is None:
            raise self._unusable(f"there is no program {program!r} that can be run")
        return str(Path(found).absolute())

    def _compiled(self, pattern: str) -> re.Pattern[str]:
        try:
            return re.compile(pattern)
        except re.error as error:
            raise self._unusable(f"the pattern {pattern!r} cannot be used: {error}") from None

    def _found_account(self, user: str) -> tuple[int, int] | None:
        """User and group id of the account that the program runs as; None: our own."""
        if not user:
            return None
        if os.geteuid() != 0:
            raise self._unusable("user takes the rights of root")
        try:
            found = pwd.getpwnam(user)
        except KeyError:
            raise self._unusable(f"there is no account {user!r}") from None
        return found.pw_uid, found.pw_gid

    def _unusable(self, reason: str) -> ConfigError:
        return ConfigError(f"executor.command.{self._name}: {reason}")
