"""A mistake is refused with advice, named by its source."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.settings.config import ConfigError
from service.settings.keys import KEYS, variable_name
from service.settings.loading import load_settings
from tests.unit.settings.sources import load, refusal


@pytest.mark.parametrize("content", [b"http = [", b"\xff\xfe"])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "holdfast.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"holdfast\.toml"):
        load_settings(environment={}, directory=tmp_path)


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("http.prot = 1", "http.prot (from {file}): did you mean 'http.port'?"),
        ("http = 3", "it is a section with the keys http.host, http.port"),
        ("http.port.x = 3", "http.port = {{'x': 3}} (from {file}): must be a whole number"),
        ("zzz = 3", "`holdfast check-config` lists every setting"),
        ("origins.a = 'b'", "unknown setting origins.a"),
        ("http.port = 70000", "must be a whole number from 0 up to 65535"),
        ("http.port = '8000x'", "http.port = '8000x'"),
        ("http.port = true", "must be a whole number"),
        ("http.port = 1.5", "must be a whole number"),
        ("sample.enabled = 3", "must be true or false"),
        ("executor.claim.lease_s = nan", "must be a number above 0 up to 43200"),
        ("executor.claim.lease_s = inf", "must be a number above 0 up to 43200"),
        ("executor.claim.refining_max_ratio = 1.1", "must be a number from 0 up to 1"),
        ("executor.worker.rejection_policy = 'discard'", "must be one of: 'release'"),
        ("executor.handlers = 'a', ", "not valid TOML"),
        ("executor.handlers = ['']", "must be a list of texts, none empty"),
        ("executor.instance_id = 'with space'", "1 to 128 letters"),
        ("data_dir = 3", "data_dir = 3 (from {file}): must be a path"),
        ("data_dir = '~nobody-of-that-name/x'", "must be a path"),
        ("executor.claim.lease_s = 5", "must be above executor.claim.heartbeat_s (5)"),
        ("executor.claim.heartbeat_s = 20", "must be above executor.claim.heartbeat_s (20)"),
        ("nats.replicas = 3", "must be 1 for the embedded server"),
        ("[nats]\nurl = 'nats://h:1'\nstaging_dir = '/m'", "is for the embedded server"),
        ("nats.url = 'localhost:4222'", "must be nats://host:port"),
        ("nats.url = ','", "must be nats://host:port"),
        ("[nats]\nurl = 'nats://h:1'\nprefix = 'a.b'", "must be 1 to 32 letters, digits, dashes"),
        ("[nats]\nurl = 'nats://h:1'\nprefix = '_INBOX'", "the first one a letter or a digit"),
        ("[nats]\nurl = 'nats://h:1'\nprefix = \"a\\n\"", "must be 1 to 32 letters"),
        ("[nats]\nurl = 'nats://h:1'\nprefix = 'plans'", "must not be plans, audit or snapshots"),
        ("[nats]\nurl = 'nats://h:1'\ndomain = '*'", "must be 1 to 64 letters"),
        ("nats.prefix = 'blue'", "is for an external server and needs nats.url"),
        ("nats.domain = 'hub'", "is for an external server and needs nats.url"),
        ("auth.tokens_file = 'absent'", "must name a file that exists"),
        ("http.tls_cert = 'cert.pem'", "http.tls_cert and http.tls_key go together"),
        ("http.allowed_hosts = ['a:1']", "a list of texts"),
    ],
)
def test_a_mistake_is_refused_with_advice(tmp_path: Path, toml: str, expected: str) -> None:
    assert expected.format(file=tmp_path / "holdfast.toml") in refusal(toml, tmp_path)


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("HOLDFAST_HTTP__PROT", "1", "(from environment HOLDFAST_HTTP__PROT): did you mean"),
        ("HOLDFAST_HTTP_PORT", "1", "did you mean 'http.port'?"),
        ("HOLDFAST_HTTP__PORT", "", "http.port = ''"),
        ("HOLDFAST_HTTP__PORT", "-1", "must be a whole number from 0 up to 65535"),
        ("HOLDFAST_SAMPLE__ENABLED", "maybe", "must be true or false"),
        ("HOLDFAST_EXECUTOR__HANDLERS", "[1]", "must be a list of texts"),
        ("HOLDFAST_EXECUTOR__HANDLERS", "[", "must be a list of texts"),
        ("HOLDFAST_EXECUTOR__CLAIM__LEASE_S", "nan", "must be a number above 0"),
    ],
)
def test_the_environment_is_checked_like_the_file(variable: str, value: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(environment={variable: value})
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HOLDFAST_PORT", "8000"),
        ("HOLDFAST_HTTP_PORT", "8000"),
        ("HOLDFAST_HTTP__PORT", "tcp://10.0.0.1:80"),
        ("HOLDFAST_SERVICE", "x"),
        ("HOLDFAST_SERVICE_HOSTS", "x"),
        ("HOLDFAST_HTTP_HOST", "127.0.0.1"),
    ],
)
def test_a_typo_that_resembles_a_services_variable_is_named(variable: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(environment={variable: value})
    message = str(caught.value)
    assert f"(from environment {variable})" in message
    assert "must be" in message or "unknown setting" in message


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])  # noqa: S104
def test_other_machines_are_refused_without_tokens(host: str) -> None:
    assert "http.host" in refusal(flags={"http.host": host})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_needs_no_tokens(host: str) -> None:
    assert load(flags={"http.host": host}).http.host == host


def test_other_machines_may_call_with_tokens(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.touch()
    loaded = load(flags={"http.host": "0.0.0.0", "auth.tokens_file": str(tokens)})  # noqa: S104
    assert loaded.auth.tokens_file == tokens


def test_a_refusal_quotes_no_more_than_a_few_lines() -> None:
    assert len(refusal(HOLDFAST_HTTP__PORT="9" * 5000)) < 400


@given(st.sampled_from(sorted(KEYS)), st.text(st.characters(blacklist_characters="\0")))
def test_any_text_is_taken_or_refused_by_name(key: str, text: str) -> None:
    try:
        load_settings(environment={variable_name(key): text})
    except ConfigError as error:
        message = str(error)
    else:
        message = key
    assert key in message


@pytest.mark.parametrize(
    "toml",
    [
        '[secrets.a]\nenv = "A"', '[secrets.a]\nfor = ["https://h"]',
        '[secrets.a]\nenv = "A"\nfile = "f"\nfor = ["https://h"]',
        '[secrets.a]\nenv = "A"\nfor = ["api.openai.com"]',
        '[executor.chat.endpoints.a]\nbase_url = "localhost"',
        '[executor.chat.endpoints.a]\nbase_url = "https://h"\nsecret = "absent"',
        "[executor.command.a]\nargv = []",
    ],
)  # fmt: skip
def test_entries_that_do_not_fit_stop_the_start(tmp_path: Path, toml: str) -> None:
    assert "must" in refusal(toml, tmp_path) or "there is no" in refusal(toml, tmp_path)


@pytest.mark.parametrize("toml", ['[executor.command]\nallow = ["wc"]', ""])
def test_the_allow_list_of_programs_is_refused_with_how_to_name_command_lines(
    tmp_path: Path, toml: str
) -> None:
    environment = {} if toml else {"HOLDFAST_EXECUTOR__COMMAND__ALLOW": "wc"}
    said = refusal(toml, tmp_path, None, **environment)
    assert 'argv = ["wc", "-w", "--", "{file}"]' in said
