"""Settings that are read again while running."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.settings.config import ConfigError, ObservabilitySettings, Settings
from service.settings.loading import load_settings
from service.settings.reloading import Reloading


class World:
    """A configuration file, and what was put in force from it."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "holdfast.toml"
        self.applied: list[ObservabilitySettings] = []
        self.write("")
        self.reloading = Reloading(self.read(), self.read, self.applied.append)

    def read(self) -> Settings:
        return load_settings(config_file=self._file, environment={})

    def write(self, content: str) -> None:
        self._file.write_text(content)

    def reload(self, content: str) -> None:
        self.write(content)
        self.reloading.reload()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_both_toggles_are_taken_over(world: World) -> None:
    world.reload("[observability]\naudit_success_log_enabled = true")
    world.reload("[observability]\naudit_log_enabled = false")
    assert world.applied == [
        ObservabilitySettings(audit_success_log_enabled=True),
        ObservabilitySettings(audit_log_enabled=False),
    ]


def test_a_key_that_needs_a_restart_is_named_and_no_other(world: World) -> None:
    with capture_logs() as lines:
        world.reload("[observability]\naudit_log_enabled = false\n[http]\nport = 9")
    (named,) = [line["keys"] for line in lines if line["event"] == "settings_need_a_restart"]
    assert named == ["http.port"]
    assert len(world.applied) == 1


def test_a_bad_file_is_refused_with_the_reason_and_changes_nothing(world: World) -> None:
    with capture_logs() as lines:
        world.reload("[observability]\naudit_log_enabled = 7")
    with pytest.raises(ConfigError) as reason:
        world.read()
    assert not world.applied
    assert [(line["event"], line["error"]) for line in lines] == [
        ("settings_refused", str(reason.value))
    ]
