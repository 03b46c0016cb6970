"""Reads the settings again at SIGHUP: a few change at once, the log names those that cannot."""

from collections.abc import Callable

import structlog

from service.settings.config import ConfigError, ObservabilitySettings, Settings
from service.settings.keys import changed_keys

AT_RUN_TIME = frozenset({
    "observability.audit_log_enabled",
    "observability.audit_success_log_enabled",
})  # fmt: skip
"""The keys that a running instance takes over."""

log = structlog.get_logger("holdfast.settings")


class Reloading:
    """Keeps the settings in force; `reload` never raises."""

    def __init__(
        self,
        settings: Settings,
        read_again: Callable[[], Settings],
        apply: Callable[[ObservabilitySettings], None],
    ) -> None:
        """``read_again`` may raise ConfigError; ``apply`` puts the changeable settings in force."""
        self._started_with = settings
        self._in_force = settings.observability
        self._read_again = read_again
        self._apply = apply

    def reload(self) -> None:
        """Read the settings again; what cannot be used changes nothing."""
        try:
            settings = self._read_again()
        except ConfigError as error:
            log.warning("settings_refused", error=str(error))
            return
        changed = changed_keys(self._started_with, settings)
        if needs_restart := [key for key in changed if key not in AT_RUN_TIME]:
            log.warning("settings_need_a_restart", keys=needs_restart)
        before, self._in_force = self._in_force, settings.observability
        self._apply(self._in_force)
        log.info("settings_reloaded", before=_shown(before), now=_shown(self._in_force))


def _shown(settings: ObservabilitySettings) -> dict[str, bool]:
    return {
        "audit_log_enabled": settings.audit_log_enabled,
        "audit_success_log_enabled": settings.audit_success_log_enabled,
    }
