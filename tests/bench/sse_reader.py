"""One client that replays: a bare socket, so that it is not what is measured.

Usage: python -m tests.bench.sse_reader PORT PATH. Reads until `caught_up`, then looks at what came.
Prints one JSON object.
"""

import json
import re
import socket
import sys
import time
from itertools import pairwise

CAUGHT_UP = b"event: caught_up\n"
_ids = re.compile(rb"^id: (\d+)$", re.MULTILINE)
_chunk_borders = re.compile(rb"\r\n[0-9a-f]+\r\n")


def main() -> None:
    """Ask, read, and only then look."""
    port, path = int(sys.argv[1]), sys.argv[2]
    client = socket.create_connection(("127.0.0.1", port))
    began, cpu = time.perf_counter(), time.process_time()
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode())
    parts: list[bytes] = []
    end = b""
    while CAUGHT_UP not in end:
        part = client.recv(1 << 20)
        if not part:
            raise RuntimeError("the stream ended", b"".join(parts)[-500:])
        parts.append(part)
        end = end[-64:] + part[-512:]
    took_s, cpu = time.perf_counter() - began, time.process_time() - cpu
    text = _chunk_borders.sub(b"", b"".join(parts))
    ids = [int(found) for found in _ids.findall(text)]
    events = text.count(b'\ndata: {"sequence":') - 1  # caught_up has one too
    print(
        json.dumps(
            {
                "events": events,
                "took_s": took_s,
                "generator_cpu": cpu / took_s,
                "megabytes": len(text) / 1e6,
                "increasing": all(a < b for a, b in pairwise(ids)),
                "last": ids[-1],
            }
        )
    )


main()
