"""Ports of loopback that stay a test's own, also while nothing listens there."""

import random
import socket

HOST = "127.0.0.1"
# Below the ports that the kernel gives to outgoing connections: while a process is dead, none of
# those may take its port.
LOWEST, HIGHEST = 20_000, 32_000

_held: dict[int, socket.socket] = {}


def free_port() -> int:
    """A port on which nothing listens, held until it is given back or this process ends.

    Another process of this run, or another run, does not take it.
    """
    for port in random.SystemRandom().sample(range(LOWEST, HIGHEST), HIGHEST - LOWEST):
        if port not in _held and _hold(port):
            return port
    raise AssertionError("no port is free")


def free_ports(count: int) -> list[int]:
    """Different ones."""
    return [free_port() for _ in range(count)]


def give_back(port: int) -> None:
    """Nothing of this test will listen there again."""
    if (holder := _held.pop(port, None)) is not None:
        holder.close()


def _hold(port: int) -> bool:
    holder = socket.socket()
    try:
        holder.bind((HOST, port))
    except OSError:
        holder.close()
        return False
    # From now on a server that reuses addresses, as all do, can listen beside this socket.
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _held[port] = holder
    return True
