"""Settings as a test gives them: a file, the environment and flags."""

from pathlib import Path

import pytest

from service.settings.config import ConfigError, Settings
from service.settings.loading import load_settings


def load(
    toml: str = "",
    directory: Path = Path("/nonexistent"),
    flags: dict[str, object] | None = None,
    **environment: str,
) -> Settings:
    if toml:
        (directory / "holdfast.toml").write_text(toml, encoding="utf-8")
    return load_settings(environment=environment, flags=flags, directory=directory)


def refusal(
    toml: str = "",
    directory: Path = Path("/nonexistent"),
    flags: dict[str, object] | None = None,
    **environment: str,
) -> str:
    with pytest.raises(ConfigError) as caught:
        load(toml, directory, flags, **environment)
    return str(caught.value)
