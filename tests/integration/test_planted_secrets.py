"""Secrets are planted wherever one comes by, and are found nowhere after a busy run."""

import json
import secrets
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from tests.faults.service_process import ServiceProcess
from tests.waiting import until

PLACES = (
    "KEY",  # environment variable of a secret in the settings; echoed by a provider in a 401
    "FILE",  # file of a secret in the settings; echoed by a receiver in its answer
    "ENDPOINT",  # key of a model's endpoint; echoed in the words of the model
    "PASSWORD",  # password in the URL of an endpoint
    "COLLECTOR",  # query string of a URL in the settings
    "LOCAL",  # local variable of a handler that raises
    "UNUSED",  # environment variable that nothing names
    "TYPED",  # input of a built-in kind, in a field that it does not have
    "TOKEN",  # Authorization header of a request
    "QUERY",  # query string of a request
)
VISIBLE = "visible-in-the-log"


class Provider(ThreadingHTTPServer):
    """Answers everything by quoting the key that it was sent; keeps what it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Quoting)
        self.bodies: list[bytes] = []
        self.keys: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()


class _Quoting(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = cast("Provider", self.server)
        key = self.headers.get("Authorization", "") + self.headers.get("X-Key", "")
        server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        server.keys.append(key)
        status, kind = (401 if "refusing" in self.path else 200), "application/json"
        if "talking" in self.path:
            kind = "text/event-stream"
            said = "".join(map(_chunk, (f"{VISIBLE} {key[:20]}", key[20:], " was said")))
            said += _chunk("", "stop") + "data: [DONE]\n\n"
        else:
            said = json.dumps({"error": {"message": f"wrong key {key}"}, "quoted": json.dumps(key)})
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        """Say nothing."""


def _chunk(text: str, finish: str | None = None) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]})}\n\n"


@pytest.fixture
def provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.shutdown()
    provider.server_close()


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A secret for every place, with a quote in the one that JSON within JSON must escape."""
    planted = {place: f"sk-{place.lower()}-{secrets.token_hex(12)}" for place in PLACES}
    planted["FILE"] = f'sk-"{planted["FILE"]}"'
    for place, value in planted.items():
        if place != "FILE":
            monkeypatch.setenv(f"PLANTED_{place}", value)
    return planted


@pytest.fixture
def service(
    tmp_path: Path, provider: Provider, planted: dict[str, str]
) -> Iterator[ServiceProcess]:
    (tmp_path / "key").write_text(planted["FILE"])
    endpoint = {"base_url": f"{provider.url}/talking/v1", "api_key_env": "PLANTED_ENDPOINT"}
    with_password = f"http://user:{planted['PASSWORD']}@{provider.url[7:]}/refusing/v1"
    service = ServiceProcess(
        tmp_path / "data",
        secrets=json.dumps({
            "key": {"env": "PLANTED_KEY", "for": [provider.url]},
            "file": {"file": str(tmp_path / "key"), "for": [provider.url, "command:show"]},
        }),
        executor__chat__endpoints=json.dumps({
            "talking": endpoint,
            "refusing": {"base_url": f"{provider.url}/refusing/v1", "secret": "key"},
            "password": {"base_url": with_password},
        }),
        executor__command=json.dumps({"show": {"argv": ["sh", "-c", "env; cat; env >&2; exit 3"]}}),
        executor__web__allow_networks="127.0.0.1",
        executor__handlers="tests.integration.planted_handlers",
        observability__otlp_traces_endpoint=f"{provider.url}/spans?key={planted['COLLECTOR']}",
        observability__audit_success_log_enabled="true",
    )  # fmt: skip
    yield service.start()
    service.stop()


def chat(id: str, endpoint: str) -> dict[str, Any]:
    asked = {"endpoint": endpoint, "model": "m", "messages": [{"role": "user", "content": "hi"}]}
    return task(id, "chat", asked)


def task(id: str, kind: str, given: object) -> dict[str, Any]:
    return {"id": id, "kind": kind, "input": given, "max_retries": 0, "on_failure": "continue"}


def tasks(url: str) -> list[dict[str, Any]]:
    bearer = {"secret": "key", "prefix": "Bearer "}
    return [
        chat("refusing", "refusing"),
        chat("talking", "talking"),
        chat("password", "password"),
        task("refused", "http", {"url": f"{url}/refusing", "headers": {"Authorization": bearer}}),
        task("quoted", "http", {"url": f"{url}/hook", "headers": {"X-Key": {"secret": "file"}}}),
        task("show", "command", {"command": "show", "stdin": {"secret": "file"},
                                 "env": {"MINE": {"secret": "file"}}}),
        task("careless", "careless", {}),
        task("apart", "careless_apart", {}),
        task("outside", "outside", {}),
    ]  # fmt: skip


def work_outside(client: httpx.Client, key: str) -> None:
    """A worker of another program quotes a key in everything that it says."""
    wish = {"owner": "w", "kinds": ["outside"], "wait_s": 10}
    (claim,) = client.post("/v1/claims", json=wish).json()["claims"]
    path, named = "/v1/plans/p/tasks/outside", {"owner": "w", "attempt": claim["attempt"]}
    shown = client.post(f"{path}/progress", json=named | {"data": {key: [key]}})
    assert shown.is_success, shown.text
    failed = {"error_type": "other", "error_message": f"401: {key}", "retryable": False}
    assert client.post(f"{path}/fail", json=named | failed).is_success
    late = client.post(f"{path}/complete", json={"owner": key, "attempt": 9, "output": key})
    assert late.status_code == 409


def misbehave(client: httpx.Client, planted: dict[str, str], url: str) -> None:
    """Requests that carry a secret where none belongs; all of them are refused."""
    typed = {"url": url, "api_key": planted["TYPED"], planted["TYPED"]: 1}
    for given in (typed, {"url": url, "headers": {"Authorization": f"Bearer {planted['KEY']}"}}):
        plan = {"id": "typed", "tasks": [task("t", "http", given)]}
        refused = client.post("/v1/plans", json=plan)
        assert refused.status_code == 400
        assert planted["KEY"] not in refused.text
    assert client.get("/v1/plans", params={"api_key": planted["QUERY"]}).status_code == 400
    client.get("/v1/plans", headers={"Authorization": f"Bearer {planted['TOKEN']}"})
    client.post("/v1/plans/p/pause", json={"reason": f"because of {planted['KEY']}"})
    client.post("/v1/plans/p/resume", json={"reason": f"because of {planted['KEY']}"})


def evidence(service: ServiceProcess, client: httpx.Client, provider: Provider) -> dict[str, bytes]:
    """Everything that stays or goes out, by its place."""
    events = b""
    with client.stream("GET", "/v1/plans/p/events", params={"after": 0}) as stream:
        for part in stream.iter_bytes():
            events += part
    answers = {
        path: client.get(path).content
        for path in ("/metrics", "/v1/audit?limit=1000", "/v1/plans/p", "/v1/executions?limit=200",
                     "/v1/ops/doctor", "/v1/ops/status", "/v1/plans/p/why")
    }  # fmt: skip
    assert service.terminate() == 0
    spans = b"".join(body for body in provider.bodies if b"holdfast" in body)
    assert spans
    files = {str(path): path.read_bytes() for path in service.data_dir.rglob("*") if path.is_file()}
    return answers | files | {"events": events, "spans": spans, "output": service.output.encode()}


def test_ten_planted_secrets_are_found_nowhere(
    service: ServiceProcess, provider: Provider, planted: dict[str, str]
) -> None:
    with httpx.Client(base_url=service.url, timeout=20) as client:
        submitted = client.post("/v1/plans", json={"id": "p", "tasks": tasks(provider.url)})
        assert submitted.status_code == 201, submitted.text
        work_outside(client, planted["KEY"])
        misbehave(client, planted, provider.url)
        until(lambda: client.get("/v1/plans/p").json()["finished_at"], what="the plan has ended")
        sent = " ".join(provider.keys)
        assert all(planted[place] in sent for place in ("KEY", "FILE", "ENDPOINT")), "they are used"
        found = evidence(service, client, provider)
    assert found["output"].count(b"handler_raised") == 2
    for value in (VISIBLE, "***"):
        stored = [place for place, content in found.items() if value.encode() in content]
        assert "events" in stored
        assert any(".blk" in place for place in stored), "the log is read as it is on disk"
    hits = [
        (place, secret)
        for place, content in found.items()
        for secret, value in planted.items()
        if value.strip('sk-"').encode() in content
    ]
    assert hits == []
