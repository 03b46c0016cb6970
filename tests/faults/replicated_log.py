"""A log that three nats-servers replicate, for stories in which one of them is lost."""

from pathlib import Path

from tests.cluster.nats_node import NatsNode
from tests.cluster.ports import HOST, NUMBERS
from tests.ports import free_ports


class ReplicatedLog:
    """Three nodes without anything between them; an instance is given the first one alone."""

    def __init__(self, folder: Path) -> None:
        ports = free_ports(9)
        self.nodes = {
            n: NatsNode(n, folder, (ports[n - 1], ports[n + 2], ports[n + 5])) for n in NUMBERS
        }
        self.url = f"nats://{HOST}:{self.nodes[1].client_port}"

    def start(self) -> None:
        """Start them; does not wait until they have found each other."""
        for node in self.nodes.values():
            node.configure(
                {n: each.route_port for n, each in self.nodes.items() if each is not node}
            )
            node.start()

    def stop(self) -> None:
        """As a power cut."""
        for node in self.nodes.values():
            node.kill()
