"""The rules that one setting alone cannot break, and what a URL in the settings may be."""

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from service.settings.config import ConfigError, NatsSettings, Settings
from service.settings.keys import Setting, refused, value_at
from streams.jetstream.servers import servers_of

OTLP_KEY = "observability.otlp_endpoint"
OTLP_TRACES_KEY = "observability.otlp_traces_endpoint"

MISSING_TOKENS = "must name a file that exists; `holdfast token add NAME --file FILE` makes one"
NO_COLON = (
    "must hold a colon where auth.tokens_file is set, as in node-1:a: the names of tokens hold "
    "none, so no token can report as this executor"
)


def check_together(settings: Settings) -> None:
    """Raise `ConfigError` for the first rule that the settings break."""

    def refuse(key: str, reason: str) -> ConfigError:
        origin = settings.origins.get(key, "default")
        return refused(Setting(key, value_at(settings, key), origin), reason)

    claim = settings.executor.claim
    if claim.lease_s <= claim.heartbeat_s:
        raise refuse(
            "executor.claim.lease_s",
            f"must be above executor.claim.heartbeat_s ({claim.heartbeat_s:g})",
        )
    if wrong := _log_complaint(settings.nats) or _outside_complaint(settings):
        raise refuse(*wrong)
    for key, endpoint in (
        (OTLP_KEY, settings.observability.otlp_endpoint),
        (OTLP_TRACES_KEY, settings.observability.otlp_traces_endpoint),
    ):
        if endpoint and not _is_web_url(with_scheme(endpoint)):
            raise refuse(key, "must be http://host:port or https://…, or host:port, of a collector")
    runbook_url = settings.observability.runbook_url
    if runbook_url and not _is_web_url(runbook_url):
        raise refuse("observability.runbook_url", "must be http://… or https://…, without a #")
    for key, reason in (*_faults_of_tokens(settings), *_faults_of_http(settings)):
        raise refuse(key, reason)


def _faults_of_tokens(settings: Settings) -> Iterator[tuple[str, str]]:
    """The key of each fault, and what is allowed."""
    tokens_file = settings.auth.tokens_file
    if tokens_file is not None and not tokens_file.is_file():
        yield "auth.tokens_file", MISSING_TOKENS
    if tokens_file is not None and ":" not in settings.executor.instance_id:
        yield "executor.instance_id", NO_COLON


def _faults_of_http(settings: Settings) -> Iterator[tuple[str, str]]:
    """The key of each fault, and what is allowed."""
    http = settings.http
    if settings.auth.tokens_file is None and not is_loopback(http.host):
        allowed = "must be a loopback address (127.0.0.1, ::1, localhost)"
        yield "http.host", f"{allowed} unless auth.tokens_file is set"
    if (http.tls_cert is None) != (http.tls_key is None):
        missing = "http.tls_key" if http.tls_key is None else "http.tls_cert"
        yield missing, "http.tls_cert and http.tls_key go together"


def _log_complaint(nats: NatsSettings) -> tuple[str, str] | None:
    """The key below `nats` that does not fit, and why."""
    if reason := _server_complaint(nats.url):
        return "nats.url", reason
    if wrong := nats.access.complaint(nats.url):
        return f"nats.{wrong[0]}", wrong[1]
    access = nats.retention_access
    if nats.retention_url and (reason := _server_complaint(nats.retention_url)):
        return "nats.retention_url", reason
    if nats.retention_url and not nats.url:
        return "nats.retention_url", "is for an external server and needs nats.url"
    if access is not None and (wrong := access.complaint(nats.url)) and wrong[0] == "creds_file":
        return "nats.retention_creds_file", wrong[1]
    if nats.replicas > 1 and not nats.url:
        return "nats.replicas", "must be 1 for the embedded server; a cluster needs nats.url"
    if nats.staging_dir is not None and nats.url:
        return "nats.staging_dir", "is for the embedded server, in whose place nats.url stands"
    return None


def _outside_complaint(settings: Settings) -> tuple[str, str] | None:
    """The key of what handlers may reach that does not fit, and why."""
    chat = settings.executor.chat
    for name, endpoint in chat.endpoints.items():
        key = "executor.chat.endpoints"
        if not _is_web_url(endpoint.base_url):
            return key, f"{name}: base_url must be http://… or https://…"
        if endpoint.secret and endpoint.secret not in settings.secrets:
            return key, f"{name}: there is no secrets.{endpoint.secret}"
    for name, secret in settings.secrets.items():
        for place in secret.for_:
            if not place.startswith("command:") and not _is_web_url(place):
                return "secrets", f"{name}: for must hold https://host:port or command:NAME"
    return None


def with_scheme(endpoint: str) -> str:
    """An endpoint of OpenTelemetry as a URL: SDKs that speak gRPC take host:port as well."""
    return endpoint if "://" in endpoint else f"http://{endpoint}"


def _server_complaint(url: str) -> str | None:
    """Why ``url`` names no servers; None if it does, or is empty: an embedded server."""
    try:
        if url:
            servers_of(url)
    except ValueError as error:
        return str(error)
    return None


def _is_web_url(url: str) -> bool:
    return _is_url(url, {"http", "https"})


def _is_url(url: str, schemes: set[str]) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme in schemes and bool(parts.hostname) and port != 0


def is_loopback(host: str) -> bool:
    """Whether an address, or the name localhost, is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
