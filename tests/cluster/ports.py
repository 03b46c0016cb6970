"""The numbers of the nodes and instances, and ports that stay theirs through a restart."""

import random
import socket

NUMBERS = (1, 2, 3)
HOST = "127.0.0.1"
# Below the ports that the kernel gives to outgoing connections: while a process is dead, none of
# those may take its port.
LOWEST, HIGHEST = 20_000, 32_000


def free_ports(count: int) -> list[int]:
    """Different ports on which nothing listens."""
    found: list[int] = []
    for port in random.SystemRandom().sample(range(LOWEST, HIGHEST), HIGHEST - LOWEST):
        if len(found) == count:
            break
        if _is_free(port):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
