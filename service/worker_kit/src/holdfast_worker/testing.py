"""A real Holdfast for tests: ``with Server() as server: Worker("w", url=server.url)``."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import httpx

START_S = 40.0
STOP_S = 20.0
POLL_S = 0.05


class Server:
    """`holdfast serve` as a process of its own, on free ports, with a folder of its own.

    ``settings`` are keys of `holdfast.toml`, such as ``{"executor.claim.lease_s": 20}``;
    ``command`` starts Holdfast, by default the one of this Python. `kill` and `start` again try
    a crash: folder and address stay the same.
    """

    def __init__(
        self,
        settings: Mapping[str, object] | None = None,
        *,
        command: Sequence[str] = (sys.executable, "-m", "service"),
    ) -> None:
        self._settings = {"sample.enabled": False, "nats.port": 0, **(settings or {})}
        self._command = command
        self._folder = tempfile.TemporaryDirectory(prefix="holdfast-test-")
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self.url = ""

    @property
    def output(self) -> str:
        """What all its lives have printed."""
        file = self._output
        return file.read_text(errors="replace") if file.exists() else ""

    def start(self) -> Self:
        """Start it; it is ready on return. Raises RuntimeError with its output if it is not."""
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [*self._command, "serve"],
                cwd=os.getcwd(),  # noqa: PTH109 - Holdfast may be importable from here only
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_S
        while not self._is_ready(self._process):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"Holdfast did not start; it said:\n{self.output[-2000:]}")
            time.sleep(POLL_S)
        return self

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it as an operator does."""
        self._end(signal.SIGTERM)

    def close(self) -> None:
        """End it and remove its folder."""
        self.stop()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _output(self) -> Path:
        return Path(self._folder.name) / "output"

    def _environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if name != "NATS_URL" and not name.startswith("HOLDFAST_")
        }
        places = {"data_dir": f"{self._folder.name}/data", "http.port": self._port}
        said = {"PYTHONUNBUFFERED": "1"}
        for key, value in (self._settings | places).items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            said[f"HOLDFAST_{key.upper().replace('.', '__')}"] = text
        return kept | said

    def _is_ready(self, process: "subprocess.Popen[bytes]") -> bool:
        if process.poll() is not None or not (url := self._address()):
            return False
        self.url = url
        self._port = httpx.URL(url).port or 0
        try:
            return httpx.get(f"{url}/readyz", timeout=5).is_success
        except httpx.TransportError:
            return False

    def _address(self) -> str:
        """Where Holdfast serves, as its data folder says; empty before it does."""
        try:
            line = (Path(self._folder.name) / "data" / "holdfast.lock").read_bytes()
            return str(json.loads(line.partition(b"\n")[0])["http_url"])
        except (OSError, ValueError):
            return ""

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
