"""`holdfast check-config`: prints every setting, its value and its origin, as TOML."""

from collections.abc import Callable

from service.cli.client import OK
from service.cli.options import SETTINGS_HELP, command, with_settings
from service.cli.toml import Unwritable, toml_value
from service.runtime.terminal import escaped
from service.settings.config import Settings
from service.settings.keys import Setting, described, value_at


@command(
    "check-config",
    "print every setting, its value and its origin, as TOML for --config",
    more=SETTINGS_HELP,
    examples="HOLDFAST_HTTP__PORT=8080 holdfast check-config\n"
    "holdfast check-config > holdfast.toml",
)
@with_settings
def check_config(read: Callable[[], Settings]) -> int:
    """Print the settings; answers the exit code."""
    settings = read()
    found = described(settings)
    width = max(len(setting.key) for setting in found)
    for setting in found:
        print(_line(setting, settings, width))
    return OK


def _line(setting: Setting, settings: Settings, width: int) -> str:
    """The setting as TOML; a comment if saving it would not give the same setting."""
    origin = escaped(setting.origin)
    name = f"{setting.key:<{width}}"
    if setting.value is None:
        return f"# {name} =  # {origin}"
    if setting.value == {}:  # as a line it would forbid the tables below it
        return f"# {name} = {{}}  # {origin}; entries are tables: [{setting.key}.NAME]"
    try:
        value = toml_value(setting.value)
    except Unwritable:
        return f"# {name} =  # {origin}; it holds bytes that are not UTF-8"
    if setting.key == "executor.instance_id" and setting.key not in settings.origins:
        return f"# {name} = {value}  # {origin}; each process makes its own"
    if setting.holds_secret(value_at(settings, setting.key)):
        return f"# {name} = {value}  # {origin}; without its secret, which stays where it is"
    return f"{name} = {value}  # {origin}"
