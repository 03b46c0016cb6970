"""One nats-server of the cluster as a process that a test kills, freezes and wipes."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from service.runtime.child_process import dying_with_parent
from service.runtime.nats_server.process import find_server
from tests.cluster.ports import HOST

STOP_S = 20

_CONFIGURATION = """
server_name: n{number}
host: {host}
port: {client_port}
http: "{host}:{monitor_port}"
max_payload: 2MB
write_deadline: "10s"
max_pending: 64MB
ping_interval: "10s"
ping_max: 2
jetstream {{
  store_dir: "{store}"
  max_memory_store: 256MB
  max_file_store: 8GB
}}
cluster {{
  name: holdfast
  host: {host}
  port: {route_port}
  # Every route leads through the proxy: the nodes may not tell each other their real addresses.
  no_advertise: true
  advertise: "{host}:1"
  routes: [{routes}]
}}
"""


class NatsNode:
    """Node ``number``, with a client, a monitoring and a route port that stay."""

    def __init__(
        self, number: int, folder: Path, ports: tuple[int, int, int], more: str = ""
    ) -> None:
        """``more`` is added to the configuration."""
        self.number = number
        self._more = more
        self.client_port, self.monitor_port, self.route_port = ports
        self.frozen = False
        self._folder = folder / f"nats-{number}"
        self._process: subprocess.Popen[bytes] | None = None
        self._folder.mkdir(parents=True, exist_ok=True)

    def configure(self, link_ports: Mapping[int, int]) -> None:
        """Write the configuration; ``link_ports`` lead to the other nodes."""
        routes = ", ".join(f'"nats-route://{HOST}:{port}"' for port in link_ports.values())
        text = _CONFIGURATION.format(
            number=self.number,
            host=HOST,
            client_port=self.client_port,
            monitor_port=self.monitor_port,
            route_port=self.route_port,
            store=self._store,
            routes=routes,
        )
        self._configuration.write_text(text + self._more, encoding="utf-8")

    @property
    def _store(self) -> Path:
        return self._folder / "store"

    @property
    def _configuration(self) -> Path:
        return self._folder / "nats.conf"

    @property
    def running(self) -> bool:
        """Whether the process is there; it may be frozen."""
        return self._process is not None and self._process.poll() is None

    @property
    def answers(self) -> bool:
        """Whether the process can answer."""
        return self.running and not self.frozen

    def start(self) -> None:
        """Start the process unless it runs; does not wait until it is ready."""
        if self.running:
            return
        with (self._folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                dying_with_parent(str(find_server()), "-c", str(self._configuration)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.frozen = False

    def kill(self) -> None:
        """As a power cut."""
        if self._process is not None and self.running:
            self._process.kill()
            self._process.wait(STOP_S)
        self.frozen = False

    def stop(self) -> None:
        """End it as an operator does for an upgrade; blocks for at most `STOP_S`."""
        self.terminate()
        if self._process is not None:
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def terminate(self) -> None:
        """Ask the process to end; does not wait."""
        self.thaw()
        if self._process is not None and self.running:
            self._process.terminate()

    def freeze(self) -> None:
        """As a machine that is suspended."""
        self._send(signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        """Let a frozen process go on."""
        if self.frozen:
            self._send(signal.SIGCONT)
        self.frozen = False

    def wipe(self) -> None:
        """Delete the store of a node that does not run: its disk was replaced."""
        assert not self.running
        shutil.rmtree(self._store, ignore_errors=True)

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self.running:
            os.kill(self._process.pid, number)
