"""Settings come from four sources, the later one wins, and a mistake is refused with advice."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.settings.config import ConfigError, Settings
from service.settings.keys import KEYS, described, variable_name
from service.settings.loading import load_settings

# The table of the HTTP contract.
DEFAULTS = {
    "http.host": "127.0.0.1",
    "http.port": 8000,
    "http.allowed_hosts": (),
    "http.root_path": "",
    "http.tls_cert": None,
    "http.tls_key": None,
    "http.head_timeout_s": 10.0,
    "http.body_timeout_s": 30.0,
    "http.max_connections_per_client": 5_000,
    "http.max_streams_per_client": 5_000,
    "http.max_waiting_claims_per_client": 2_000,
    "http.writes_per_s": 2_000,
    "http.bytes_per_s": 50_000_000,
    "data_dir": Path("data"),
    "nats.url": "",
    "nats.port": 4222,
    "nats.replicas": 1,
    "nats.creds_file": None,
    "nats.retention_creds_file": None,
    "nats.retention_url": "",
    "nats.nkey_file": None,
    "nats.tls_ca": None,
    "nats.tls_cert": None,
    "nats.tls_key": None,
    "nats.prefix": "",
    "nats.domain": "",
    "nats.plans_share": 0.5,
    "nats.plans_max_bytes": 0,
    "nats.audit_max_bytes": 1_073_741_824,
    "log.format": "auto",
    "log.level": "info",
    "ui.enabled": True,
    "memory.unfinished_bytes": 2_147_483_648,
    "auth.tokens_file": None,
    "scheduling.task_executor.pool_size": 1,
    "scheduling.daemon.pool_size": 2,
    "sse.heartbeat_s": 15,
    "sse.buffer_events": 1000,
    "sse.replay_batch_size": 1000,
    "sse.max_connections": 10_000,
    "observability.audit_log_enabled": True,
    "observability.audit_success_log_enabled": False,
    "observability.otlp_endpoint": "",
    "observability.otlp_traces_endpoint": "",
    "observability.runbook_url": "",
    "sample.enabled": True,
    "executor.claim.lease_s": 15,
    "executor.claim.heartbeat_s": 5,
    "executor.claim.batch_size": 100,
    "executor.claim.max_per_tick": 100,
    "executor.claim.ready_first": True,
    "executor.claim.ageing_s": 30,
    "executor.claim.refining_max_ratio": 0.3,
    "executor.claim.refining_min_per_tick": 1,
    "executor.poll_interval_s": 1,
    "executor.drain_s": 10,
    "executor.execution.timeout_s": 120,
    "executor.execution.timeout_retry_max": 1,
    "executor.worker.core_size": 8,
    "executor.worker.processes": -1,
    "executor.worker.memory_mb": 4096,
    "executor.worker.queue_capacity": 0,
    "executor.worker.rejection_policy": "release",
    "retention.finished_days": 0,
    "retention.archive_dir": None,
    "executor.handlers": (),
    "executor.command": {},
    "executor.chat.endpoints": {},
    "executor.chat.any_url": False,
    "executor.web.allow_networks": (),
    "secrets": {},
}


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


OTLP = "observability.otlp_endpoint"


def test_opentelemetrys_own_variables_set_where_spans_go() -> None:
    ours = "HOLDFAST_OBSERVABILITY__OTLP_ENDPOINT"

    def seen(environment: dict[str, str]) -> str:
        standard = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
        settings = load_settings(environment=standard | environment, directory=Path("/nonexistent"))
        return settings.observability.otlp_endpoint

    assert seen({}) == "http://collector:4318"
    assert seen({ours: "https://ours:4318"}) == "https://ours:4318"
    assert seen({ours: ""}) == ""


@pytest.mark.parametrize(
    ("variable", "key"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "observability.otlp_endpoint"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "observability.otlp_traces_endpoint"),
    ],
)
@pytest.mark.parametrize("url", ["collector:4317", "localhost:4318", "http://c:4318/otel", "c"])
def test_an_endpoint_of_opentelemetry_may_lack_a_scheme(variable: str, key: str, url: str) -> None:
    loaded = load_settings(environment={variable: url}, directory=Path("/nonexistent"))
    assert loaded.origins == {key: f"environment {variable}"}


@pytest.mark.parametrize(
    "url", ["grpc://collector:4317", "http://", "http://a:b", ":4317", "collector:x"]
)
def test_an_endpoint_for_spans_is_a_url_of_the_web(url: str) -> None:
    flags: dict[str, object] = {OTLP: url}
    assert OTLP in refusal(flags=flags)


def test_the_defaults_are_those_of_the_contract() -> None:
    shown = {setting.key: setting.value for setting in described(Settings())}
    instance_id = shown.pop("executor.instance_id")
    assert shown == DEFAULTS
    assert str(instance_id).count(":") == 2
    assert {setting.origin for setting in described(Settings())} == {"default"}


def test_no_two_processes_share_an_instance_id() -> None:
    assert Settings().executor.instance_id != Settings().executor.instance_id


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Settings().http.port = 1  # pyright: ignore[reportAttributeAccessIssue]


def test_nothing_configured_is_the_defaults(tmp_path: Path) -> None:
    loaded = load(directory=tmp_path)
    assert loaded.http == Settings().http
    assert loaded.origins == {}


def test_later_sources_win_and_are_named(tmp_path: Path) -> None:
    toml = """
        data_dir = "from-file"
        [http]
        port = 1001
        [executor.claim]
        lease_s = 31
        heartbeat_s = 2.5
        [executor.command.words]
        argv = ["wc", "-w", "{file}"]
    """
    loaded = load(
        toml,
        tmp_path,
        {"executor.claim.lease_s": 33, "nats.port": None},
        HOLDFAST_HTTP__PORT="1002",
        HOLDFAST_EXECUTOR__CLAIM__LEASE_S="32",
    )
    assert loaded.data_dir == Path("from-file")
    assert loaded.http.port == 1002
    assert loaded.executor.claim.lease_s == 33
    assert loaded.executor.claim.heartbeat_s == 2.5
    assert loaded.executor.command["words"].argv == ("wc", "-w", "{file}")
    origins = {setting.key: setting.origin for setting in described(loaded)}
    assert origins["data_dir"] == str(tmp_path / "holdfast.toml")
    assert origins["http.port"] == "environment HOLDFAST_HTTP__PORT"
    assert origins["executor.claim.lease_s"] == "flag"
    assert origins["nats.port"] == "default"


def test_nats_url_wins_over_its_longer_name() -> None:
    loaded = load(HOLDFAST_NATS__URL="nats://a:1", NATS_URL="nats://b:2,nats://c:3")
    assert loaded.nats.url == "nats://b:2,nats://c:3"


def test_an_explicit_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no file .*missing\.toml"):
        load_settings(config_file=tmp_path / "missing.toml", environment={})


def test_an_explicit_file_is_read_instead_of_the_usual_one(tmp_path: Path) -> None:
    (tmp_path / "holdfast.toml").write_text("http.port = 1", encoding="utf-8")
    other = tmp_path / "other.toml"
    other.write_text("http.port = 2", encoding="utf-8")
    loaded = load_settings(config_file=other, environment={}, directory=tmp_path)
    assert loaded.http.port == 2


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
        ("nats.url = 'localhost:4222'", "must be nats://host:port"),
        ("nats.url = ','", "must be nats://host:port"),
        ("[nats]\nurl = 'nats://h:1'\nprefix = 'a.b'", "must be 1 to 32 letters, digits, dashes"),
        ("[nats]\nurl = 'nats://h:1'\nprefix = '_INBOX'", "the first one a letter or a digit"),
        ("[nats]\nurl = 'nats://h:1'\nprefix = \"a\\n\"", "must be 1 to 32 letters"),
        ("[nats]\nurl = 'nats://h:1'\nprefix = 'plans'", "must not be plans or audit"),
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
    ("text", "expected"),
    [("", ()), ("a.b", ("a.b",)), ("a, b,", ("a", "b")), ('["a","b,c"]', ("a", "b,c"))],
)
def test_lists_in_the_environment(text: str, expected: tuple[str, ...]) -> None:
    assert load(HOLDFAST_EXECUTOR__HANDLERS=text).executor.handlers == expected


def test_variables_that_are_no_settings_are_left_alone() -> None:
    load(HOLDFAST_LOG="json", HOLDFAST_FAULTS="long", HOLDFAST_TEST_NATS_URL="x", OTHER="y")


def kubernetes_service(
    name: str, port: int, port_name: str = "", protocol: str = "tcp"
) -> dict[str, str]:
    """What the kubelet adds to each container of the namespace for a Service."""
    prefix = name.upper().replace("-", "_")
    address = f"{protocol}://10.96.4.7:{port}"
    one_port = f"{prefix}_PORT_{port}_{protocol.upper()}"
    named = {f"{prefix}_SERVICE_PORT_{port_name.upper().replace('-', '_')}": str(port)}
    return {
        f"{prefix}_SERVICE_HOST": "10.96.4.7",
        f"{prefix}_SERVICE_PORT": str(port),
        **(named if port_name else {}),
        f"{prefix}_PORT": address,
        one_port: address,
        f"{one_port}_PROTO": protocol,
        f"{one_port}_PORT": str(port),
        f"{one_port}_ADDR": "10.96.4.7",
    }


@pytest.mark.parametrize(
    "injected",
    [
        kubernetes_service("holdfast", 8000),
        kubernetes_service("holdfast", 443, "https-api"),
        kubernetes_service("holdfast-http", 8000),
        kubernetes_service("holdfast-nats", 4222, protocol="udp"),
        kubernetes_service("holdfast-executor-claim", 80),
    ],
)
def test_variables_of_kubernetes_services_are_no_settings(injected: dict[str, str]) -> None:
    assert load_settings(environment=injected).origins == {}
    loaded = load_settings(environment={**injected, "HOLDFAST_HTTP__PORT": "8080"})
    assert loaded.origins == {"http.port": "environment HOLDFAST_HTTP__PORT"}


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


def test_a_value_that_a_later_source_replaces_is_not_used() -> None:
    assert load(HOLDFAST_HTTP__PORT="never", flags={"http.port": 1}).http.port == 1


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


@pytest.mark.parametrize(
    "url", ["me:secret@a:4222", "secret@a:4222", "nats:/me:secret@a:1", "nats:me:secret@a:1"]
)
def test_a_url_without_a_scheme_is_refused_without_its_password(url: str) -> None:
    said = refusal(NATS_URL=url)
    assert "nats.url" in said
    assert "secret" not in said


def test_passwords_are_not_shown() -> None:
    loaded = load(NATS_URL="nats://me:secret@a:4222,nats://me:secret@b:4222")
    shown = {setting.key: setting.value for setting in described(loaded)}
    assert shown["nats.url"] == "nats://***@a:4222,nats://***@b:4222"
    assert "secret" not in refusal(NATS_URL="nats://me:secret@host:port")
    assert "secret" not in refusal(HOLDFAST_NATS__URLS="nats://me:secret/@x@host:1")


def test_a_refusal_quotes_no_more_than_a_few_lines() -> None:
    assert len(refusal(HOLDFAST_HTTP__PORT="9" * 5000)) < 400


@pytest.mark.parametrize("key", KEYS)
def test_every_number_is_bounded(key: str) -> None:
    kind = msgspec.inspect.type_info(KEYS[key]) if "path" not in str(KEYS[key]).lower() else None
    if isinstance(kind, msgspec.inspect.IntType | msgspec.inspect.FloatType):
        assert kind.le is not None
        assert kind.ge is not None or kind.gt is not None


@given(st.sampled_from(sorted(KEYS)), st.text(st.characters(blacklist_characters="\0")))
def test_any_text_is_taken_or_refused_by_name(key: str, text: str) -> None:
    try:
        load_settings(environment={variable_name(key): text})
    except ConfigError as error:
        message = str(error)
    else:
        message = key
    assert key in message


# -- tables, and what is never printed --------------------------------------------------------

PRECIOUS = "sk-live-0123456789"


@pytest.mark.parametrize(
    ("toml", "key"),
    [
        (f'[http]\npasswort = "{PRECIOUS}"', "http.passwort"),
        (f'[secrets]\nopenai = "{PRECIOUS}"', "secrets"),
        (f'[secrets.openai]\nvalue = "{PRECIOUS}"\nfor = ["https://h"]', "secrets"),
        (
            f'[executor.chat.endpoints.a]\nbase_url = "https://h"\napi_key = "{PRECIOUS}"',
            "endpoints",
        ),
        (f'[observability]\notlp_endpoint = "ftp://h/?key={PRECIOUS}"', "otlp_endpoint"),
        (f'[observability]\notlp_endpoint = "ftp://u:{PRECIOUS}@h/"', "otlp_endpoint"),
        (f'[nats]\nurl = "nats://h:{PRECIOUS}"', "nats.url"),
    ],
)
def test_a_refusal_never_prints_what_may_be_a_secret(tmp_path: Path, toml: str, key: str) -> None:
    said = refusal(toml, tmp_path)
    assert key in said
    assert PRECIOUS not in said


def test_an_unknown_variable_is_named_without_its_value() -> None:
    said = refusal(HOLDFAST_OPENAI_API_KEY=PRECIOUS)
    assert "openai_api_key" in said
    assert PRECIOUS not in said


def test_what_is_printed_has_no_password_and_no_query_string(tmp_path: Path) -> None:
    toml = f"""
        [observability]
        otlp_endpoint = "https://user:{PRECIOUS}@h/v1?key={PRECIOUS}"
        [executor.chat.endpoints.a]
        base_url = "https://user:{PRECIOUS}@h/v1"
    """
    shown = [str(each.value) for each in described(load(toml, tmp_path))]
    assert PRECIOUS not in "".join(shown)
    assert "https://***@h/v1?***" in shown


def test_entries_of_a_table_come_from_every_source(tmp_path: Path) -> None:
    toml = '[executor.command.a]\nargv = ["a"]\n[executor.command.b]\nargv = ["b"]'
    environment = '{"b": {"argv": ["other"]}, "c": {"argv": ["c"]}}'
    loaded = load(toml, tmp_path, HOLDFAST_EXECUTOR__COMMAND=environment)
    lines = {name: each.argv for name, each in loaded.executor.command.items()}
    assert lines == {"a": ("a",), "b": ("other",), "c": ("c",)}


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
