"""Whether spans are exported follows OpenTelemetry's variables, which stop no start."""

import io
import sys

import msgspec
import pytest

from service.settings.config import ConfigError
from service.settings.loading import load_settings
from service.signals.logs import configure
from service.signals.tracing import exporting
from service.signals.tracing.exporting import recorder_of

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


async def exports_to(**environment: str) -> str | None:
    """The address that spans go to, None when they are not exported."""
    settings = load_settings(environment=environment)
    recorder = recorder_of(settings, "1", environment)
    if recorder is None:
        return None
    await recorder.close()
    return recorder.exporter.endpoint  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, None),
        ({ENDPOINT: "collector:4317"}, "http://collector:4317/v1/traces"),
        ({ENDPOINT: "http://c:4318/otel/"}, "http://c:4318/otel/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:1/own"}, "http://c:1/own"),
        ({ENDPOINT: "http://c:1", "OTEL_SDK_DISABLED": "True"}, None),
        ({ENDPOINT: "http://c:1", "OTEL_SDK_DISABLED": "false"}, "http://c:1/v1/traces"),
        ({ENDPOINT: "http://c:1", "OTEL_TRACES_EXPORTER": "none"}, None),
        ({ENDPOINT: "http://c:1", "OTEL_TRACES_EXPORTER": "otlp"}, "http://c:1/v1/traces"),
    ],
)
async def test_where_spans_go(environment: dict[str, str], url: str | None) -> None:
    assert await exports_to(**environment) == url


async def test_a_protocol_that_is_not_spoken_is_named() -> None:
    lines = io.StringIO()
    handler = configure("test", stream=lines)
    assert await exports_to(**{ENDPOINT: "c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    handler.flush()
    (line,) = map(msgspec.json.decode, lines.getvalue().splitlines())
    assert (line["event"], line["said"]) == ("otlp_protocol_not_supported", "grpc")


@pytest.fixture
def without_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.startswith("opentelemetry")]:
        monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]
    monkeypatch.delitem(sys.modules, "service.signals.tracing.otlp", raising=False)
    monkeypatch.delattr("service.signals.tracing.otlp", raising=False)


@pytest.mark.usefixtures("without_opentelemetry")
async def test_a_setting_that_needs_the_extra_names_it() -> None:
    with pytest.raises(ConfigError, match=r"otlp_endpoint .* pip install opentelemetry-sdk"):
        await exports_to(HOLDFAST_OBSERVABILITY__OTLP_ENDPOINT="http://c:1")


@pytest.mark.usefixtures("without_opentelemetry")
async def test_a_variable_of_the_namespace_stops_no_start_without_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[dict[str, str]] = []
    monkeypatch.setattr(exporting.log, "warning", lambda _, **more: said.append(more))
    assert await exports_to(**{ENDPOINT: "http://c:1"}) is None
    assert "pip install opentelemetry-sdk" in said[0]["advice"]
