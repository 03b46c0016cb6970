"""SIGHUP makes a running service read its settings and its tokens again."""

import signal
from pathlib import Path
from typing import Any

import httpx

from tests.faults.service_process import ServiceProcess, until
from tests.unit.tokens_world import bearer, give


def test_a_running_service_takes_over_the_audit_toggles_and_refuses_a_bad_file(
    tmp_path: Path,
) -> None:
    settings = tmp_path / "holdfast.toml"
    settings.write_text("")
    tokens = tmp_path / "tokens.toml"
    headers = bearer(give(tokens, "w", "operator"))
    service = ServiceProcess(
        tmp_path / "data", roles="api,daemons", auth__tokens_file=str(tokens)
    ).start()
    try:
        with httpx.Client(base_url=service.url, headers=headers, timeout=20) as client:
            claim(client, "before")
            settings.write_text(
                "[observability]\naudit_success_log_enabled = true\n[sse]\nbuffer_events = 7\n"
            )
            service.send(signal.SIGHUP)
            until(lambda: "settings_reloaded" in service.output, what="the settings are read again")
            claim(client, "after")
            (entry,) = until(lambda: audit(client), what="a success is audited")
            assert (entry["event"], entry["plan_id"]) == ("claim_acquired", "after")
            assert '"keys":["sse.buffer_events"]' in service.output
            until(
                lambda: '"event":"tokens_read"' in service.output, what="the tokens are read again"
            )
            settings.write_text("[observability]\naudit_success_log_enabled = 3\n")
            service.send(signal.SIGHUP)
            until(lambda: "settings_refused" in service.output, what="the bad file is refused")
            assert "must be true or false" in service.output
            claim(client, "later")
            until(lambda: len(audit(client)) == 2, what="the settings in force have stayed")
    finally:
        service.stop()


def claim(client: httpx.Client, plan_id: str) -> None:
    plan = {"id": plan_id, "tasks": [{"id": "t", "kind": plan_id}]}
    client.post("/v1/plans", json=plan).raise_for_status()
    wish = {"owner": "w", "kinds": [plan_id], "wait_s": 5}
    (_,) = client.post("/v1/claims", json=wish).raise_for_status().json()["claims"]


def audit(client: httpx.Client) -> list[dict[str, Any]]:
    return client.get("/v1/audit").raise_for_status().json()["items"]
