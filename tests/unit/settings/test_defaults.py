"""The defaults are those of the contract, and settings are frozen and bounded."""

from pathlib import Path

import msgspec
import pytest

from service.settings.config import Settings
from service.settings.keys import KEYS, described
from tests.unit.settings.sources import load

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
    "nats.staging_dir": None,
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
    "snapshots.every_facts": 1_000_000,
    "snapshots.max_bytes": 4_294_967_296,
    "executor.handlers": (),
    "executor.command": {},
    "executor.chat.endpoints": {},
    "executor.chat.any_url": False,
    "executor.web.allow_networks": (),
    "secrets": {},
}


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


@pytest.mark.parametrize("key", KEYS)
def test_every_number_is_bounded(key: str) -> None:
    kind = msgspec.inspect.type_info(KEYS[key]) if "path" not in str(KEYS[key]).lower() else None
    if isinstance(kind, msgspec.inspect.IntType | msgspec.inspect.FloatType):
        assert kind.le is not None
        assert kind.ge is not None or kind.gt is not None
