"""Whether spans are exported, and where: our settings and OpenTelemetry's own variables.

Nothing that OpenTelemetry's variables say stops a start: they are often set for a whole namespace.
"""

import os
import sys
from collections.abc import Mapping
from typing import Protocol

import structlog

from service.settings.config import ConfigError, ObservabilitySettings, Settings
from service.settings.rules import OTLP_KEY, OTLP_TRACES_KEY, with_scheme
from service.signals.tracing.sampling import SAMPLING
from service.signals.tracing.spans import Recorder

PATH = "/v1/traces"
PROTOCOL = "http/protobuf"
PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PACKAGES = "opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"

log = structlog.get_logger("holdfast.spans")


class Exporting(Recorder, Protocol):
    """A recorder that has something to send when it is closed."""

    async def close(self) -> None:
        """Send what is left, and take no more spans."""
        ...


def recorder_of(
    settings: Settings, version: str, environment: Mapping[str, str] = os.environ
) -> Exporting | None:
    """Where spans go; None without an endpoint, and OpenTelemetry is not even imported.

    Raises ConfigError when a setting of ours asks for spans and OpenTelemetry is not installed.
    """
    url = _url(settings.observability)
    if not url or _is_switched_off(environment):
        return None
    try:
        from service.signals.tracing.otlp import OtlpRecorder  # noqa: PLC0415 - see above
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        _complain(settings)
        return None
    _warn(environment)
    return OtlpRecorder(url, settings.executor.instance_id, version, SAMPLING)


def _url(wanted: ObservabilitySettings) -> str:
    if wanted.otlp_traces_endpoint:
        return with_scheme(wanted.otlp_traces_endpoint)
    if not wanted.otlp_endpoint:
        return ""
    base = with_scheme(wanted.otlp_endpoint).rstrip("/")
    return base if base.endswith(PATH) else base + PATH


def _is_switched_off(environment: Mapping[str, str]) -> bool:
    exporters = environment.get("OTEL_TRACES_EXPORTER", "").split(",")
    disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return disabled or "none" in {each.strip() for each in exporters}


def _complain(settings: Settings) -> None:
    """OpenTelemetry is missing: refuse a setting that asks for it; else log a warning."""
    advice = f"install it with `{sys.executable} -m pip install {PACKAGES}` (the extra `otlp`)"
    for key in (OTLP_TRACES_KEY, OTLP_KEY):
        origin = settings.origins.get(key, "")
        if origin and not origin.startswith("environment OTEL_"):
            raise ConfigError(f"{key} (from {origin}) needs OpenTelemetry: {advice}")
    log.warning("spans_not_exported", reason="OpenTelemetry is not installed", advice=advice)


def _warn(environment: Mapping[str, str]) -> None:
    if SAMPLING.ignored is not None:
        log.warning("sampler_ignored", said=SAMPLING.ignored, used="parentbased_always_on")
    said = next(filter(None, map(environment.get, PROTOCOL_VARIABLES)), PROTOCOL)
    if said != PROTOCOL:
        log.warning("otlp_protocol_not_supported", said=said, used=PROTOCOL)
