"""The numbers of the nodes and instances, and ports that stay theirs through a restart."""

import random
import socket

NUMBERS = (1, 2, 3)
HOST = "127.0.0.1"
# Below the ports that the kernel gives to outgoing connections: while a process is dead, none of
# those may take its port.
LOWEST, HIGHEST = 20_000, 32_000

_held: list[socket.socket] = []


def free_ports(count: int) -> list[int]:
    """Different ports on which nothing listens, held for as long as this process lives.

    Another run beside this one does not take them, even while nothing listens there.
    """
    found: list[int] = []
    for port in random.SystemRandom().sample(range(LOWEST, HIGHEST), HIGHEST - LOWEST):
        if len(found) == count:
            break
        if _hold(port):
            found.append(port)
    return found


def _hold(port: int) -> bool:
    holder = socket.socket()
    try:
        holder.bind((HOST, port))
    except OSError:
        holder.close()
        return False
    # From now on a server that reuses addresses, as all do, can listen beside this socket.
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _held.append(holder)
    return True
