"""Settings come from four sources, and the later one wins."""

from pathlib import Path

import pytest

from service.settings.config import ConfigError
from service.settings.keys import described
from service.settings.loading import load_settings
from tests.unit.settings.sources import load, refusal

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


def test_a_value_that_a_later_source_replaces_is_not_used() -> None:
    assert load(HOLDFAST_HTTP__PORT="never", flags={"http.port": 1}).http.port == 1


def test_entries_of_a_table_come_from_every_source(tmp_path: Path) -> None:
    toml = '[executor.command.a]\nargv = ["a"]\n[executor.command.b]\nargv = ["b"]'
    environment = '{"b": {"argv": ["other"]}, "c": {"argv": ["c"]}}'
    loaded = load(toml, tmp_path, HOLDFAST_EXECUTOR__COMMAND=environment)
    lines = {name: each.argv for name, each in loaded.executor.command.items()}
    assert lines == {"a": ("a",), "b": ("other",), "c": ("c",)}
