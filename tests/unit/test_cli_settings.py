"""What the command line says of settings, flags, rules and findings, without an instance."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from service.cli.main import COMMANDS, main
from service.ops import RULES
from service.ops.doctor.report import Finding, anchor, answered, reported, with_runbook_at
from service.settings.keys import changed_keys
from service.settings.loading import load_settings

ODD_SETTINGS = r"""
data_dir = "data/\"quoted\" \\ and \u001b[31m \u202e \u007f \U0001f600"
[http]
allowed_hosts = ["a.example", "b.example"]
bytes_per_s = 1e12
[executor.claim]
refining_max_ratio = 0.25
[secrets."a b"]
file = "/run/secret"
for = ["https://h"]
[executor.command.words]
argv = ["wc", "{file}"]
parameters = {file = "^/\\w+$"}
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NATS_URL", raising=False)


def test_check_config_prints_every_setting_with_its_origin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOLDFAST_HTTP__PORT", "8123")
    assert main(["check-config"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (port,) = [line for line in lines if line.startswith("http.port ")]
    assert "8123" in port
    assert "# environment HOLDFAST_HTTP__PORT" in port


def test_what_check_config_prints_can_be_saved_and_gives_the_same_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "holdfast.toml").write_text(ODD_SETTINGS)
    before = load_settings()
    assert main(["check-config"]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    saved = tmp_path / "saved.toml"
    # An entry of a table without entries can be added below.
    saved.write_text(printed + '[executor.chat.endpoints.a]\nbase_url = "https://h"\n')
    after = load_settings(config_file=saved)
    assert changed_keys(before, after) == ["executor.chat.endpoints"]


def test_a_value_with_a_secret_is_a_comment_without_the_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NATS_URL", "nats://me:precious@h:1")
    argv = '[executor.command.a]\nargv = ["curl", "https://me:precious@h/"]'
    (tmp_path / "holdfast.toml").write_text(argv)
    assert main(["check-config"]) == 0
    printed = capsys.readouterr().out
    assert "precious" not in printed
    (tmp_path / "saved.toml").write_text(printed)
    saved = load_settings(config_file=tmp_path / "saved.toml", environment={})
    assert (saved.nats.url, saved.executor.command) == ("", {})


def test_a_text_that_toml_cannot_hold_is_a_comment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOLDFAST_DATA_DIR", "data/\udcff")
    assert main(["check-config"]) == 0
    (line,) = [each for each in capsys.readouterr().out.splitlines() if "data_dir" in each]
    assert line.startswith("# data_dir")


@pytest.mark.parametrize("command", ["serve", "rebuild", "check-config"])
def test_a_bad_setting_is_one_line_and_exit_code_2(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOLDFAST_HTTP__PROT", "1")
    assert main([command]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "http.port" in said


@pytest.mark.parametrize(
    "arguments", [[], ["dance"], ["serve", "--roles", "boss"], ["serve", "--what"], ["submit"]]
)
def test_a_wrong_flag_is_exit_code_2(arguments: list[str]) -> None:
    assert main(arguments) == 2


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in {"token", "archive"}])
def test_every_command_has_help_with_examples_and_exit_codes(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "example" in shown
    assert "exit codes" in shown


def test_rules_name_the_runbook_where_it_is_published(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["rules"]) == 0
    assert capsys.readouterr().out == RULES.read_text(encoding="utf-8")
    monkeypatch.setenv("HOLDFAST_OBSERVABILITY__RUNBOOK_URL", "https://wiki.example/runbook")
    assert main(["rules"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    rules = [rule for group in shown["groups"] for rule in group["rules"] if "alert" in rule]
    urls = {rule["annotations"]["runbook_url"] for rule in rules}
    assert f"https://wiki.example/runbook#{rules[0]['alert'].lower()}" in urls
    assert all(url.startswith("https://wiki.example/runbook#") for url in urls)


def test_findings_name_the_runbook_where_it_is_published() -> None:
    finding = Finding(
        code="X", question="leases", severity="warning", summary="", evidence={}, meaning="",
        command="", runbook=anchor("LeasesExpired"),
    )  # fmt: skip
    examined = answered("leases", "", {}, [finding])
    report = reported([examined], at=datetime.now(UTC), instance="i", window_s=None)
    assert with_runbook_at("", report) == report
    shown = with_runbook_at("https://wiki.example/runbook", report)
    assert shown.findings[0].runbook == "https://wiki.example/runbook#leasesexpired"
    assert with_runbook_at("https://wiki.example/runbook", shown) == shown
