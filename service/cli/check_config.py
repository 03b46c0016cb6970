"""`holdfast check-config`: prints every setting, its value and where it came from."""

from collections.abc import Callable

from service.cli.client import OK
from service.cli.options import SETTINGS_HELP, command, with_settings
from service.runtime.terminal import escaped
from service.settings.config import Settings


@command(
    "check-config",
    "print every setting, its value and where it came from",
    more=SETTINGS_HELP,
    examples="HOLDFAST_HTTP__PORT=8080 holdfast check-config",
)
@with_settings
def check_config(read: Callable[[], Settings]) -> int:
    """Print the settings; answers the exit code."""
    described = read().describe()
    width = max(len(setting.key) for setting in described)
    for setting in described:
        value = "" if setting.value is None else setting.value
        print(escaped(f"{setting.key:<{width}} = {value}  ({setting.origin})"))
    return OK
