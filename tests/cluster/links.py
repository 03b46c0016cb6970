"""The links of the cluster by name, as a test handles them; the proxy process carries them.

``r12`` is the route that node 1 dials to node 2, ``c13`` is how instance 1 reaches node 3.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from service.runtime.child_process import dying_with_parent
from tests.cluster.ports import NUMBERS

STOP_S = 5


class Links:
    """The running proxy. ``client_ports`` and ``route_ports`` are those of the nodes, by number."""

    def __init__(self, client_ports: Mapping[int, int], route_ports: Mapping[int, int]) -> None:
        routes = {f"r{a}{b}": route_ports[b] for a in NUMBERS for b in NUMBERS if a != b}
        clients = {f"c{k}{n}": client_ports[n] for k in NUMBERS for n in NUMBERS}
        targets = [f"{name}={port}" for name, port in (routes | clients).items()]
        program = str(Path(__file__).with_name("proxy.py"))
        self._process = subprocess.Popen(
            dying_with_parent(sys.executable, program, *targets),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.names = (*routes, *clients)
        self.ports: dict[str, int] = self._answer()

    def stop(self) -> None:
        """Close every link."""
        self._process.kill()
        self._process.wait(STOP_S)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def routes_of(self, node: int) -> list[str]:
        """The links between this node and the others."""
        return [name for name in self.names if name[0] == "r" and str(node) in name]

    def clients_of(self, instance: int) -> list[str]:
        """The links between this instance and all nodes."""
        return [f"c{instance}{node}" for node in NUMBERS]

    def nodes_of(self, instance: int) -> list[int]:
        """The nodes to which this instance has a connection now."""
        open_now = self._order({})
        return [node for node in NUMBERS if open_now[f"c{instance}{node}"]]

    def cut(self, names: Iterable[str]) -> None:
        """Hold back every byte, and say nothing to either end."""
        self._order({"mode": dict.fromkeys(names, "cut")})

    def refuse(self, names: Iterable[str]) -> None:
        """Reset every connection, those to come as well."""
        self._order({"mode": dict.fromkeys(names, "refuse")})

    def mend(self, names: Iterable[str]) -> None:
        """Carry everything again, at once."""
        names = list(names)
        plain = {"mode": dict.fromkeys(names, "open"), "delay": dict.fromkeys(names, 0)}
        self._order(plain | {"lag": dict.fromkeys(names, None)})

    def delay(self, names: Iterable[str], seconds: float) -> None:
        """Let every byte arrive so much later, in each direction."""
        self._order({"delay": dict.fromkeys(names, seconds)})

    def lag(self, node: int, seconds: float) -> None:
        """Let this node receive replicated entries so much later, and everything else at once."""
        towards = {
            name: ["dialler" if name[1] == str(node) else "target", seconds]
            for name in self.routes_of(node)
        }
        self._order({"lag": towards})

    def _order(self, order: dict[str, Any]) -> dict[str, int]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, int]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the proxy ended with {self._process.poll()}"
        return json.loads(line)
