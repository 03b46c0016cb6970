"""An instance notices that its files are open to others, and that its log takes anyone."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import PrivateServer
from tests.integration.http_world import serving


async def findings(client: httpx.AsyncClient) -> dict[str, Any]:
    report = (await client.get("/v1/ops/doctor")).json()
    return {each["code"]: each for each in report["findings"] if each["question"] == "security"}


async def test_a_private_instance_has_nothing_to_tell(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        assert await findings(client) == {}


@pytest.mark.parametrize(("mode", "severity"), [(0o755, "warning"), (0o722, "critical")])
async def test_a_data_folder_that_was_opened_is_found(
    tmp_path: Path, mode: int, severity: str
) -> None:
    async with serving(tmp_path) as (instance, client):
        instance.settings.data_dir.chmod(mode)
        found = await findings(client)
    assert found["OpenToOtherAccounts"]["severity"] == severity


async def test_a_server_without_users_and_a_proxy_without_tokens_are_found(
    tmp_path: Path, private_nats: PrivateServer
) -> None:
    async with serving(tmp_path / "one", nats__url=private_nats.url) as (_, client):
        forwarded = await client.get("/v1/plans", headers={"X-Forwarded-For": "192.0.2.1"})
        assert forwarded.status_code == 403
        assert [*await findings(client)] == ["LogWithoutCredentials", "ProxyWithoutTokens"]
