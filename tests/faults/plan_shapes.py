"""Plans of every shape: fans with all joins, chains, critics, skips, cancelled ones."""

import itertools
import random
from collections.abc import Iterator
from typing import Any

LEASE_S = 25.0  # longer than a restart on a busy machine

Json = dict[str, Any]


def shapes(dice: random.Random) -> Iterator[Json]:
    """Plans of every kind, one after the other, for ever."""
    outside = {"kind": "outside", "lease_s": LEASE_S, "max_retries": 20}
    for number in itertools.count():
        name = f"plan-{number}"
        echoes = [{"id": f"e{n}", "kind": "echo", "input": {"n": n}} for n in range(10)]
        ids = [each["id"] for each in echoes]
        yield {
            "id": f"{name}-fan",
            "tasks": [
                *echoes,
                {"id": "all", **outside, "depends_on": ids},
                {"id": "any", "kind": "echo", "depends_on": ids, "join": "any"},
                {"id": "some", "kind": "echo", "depends_on": ids, "join": "quorum", "quorum": 3},
            ],
        }
        yield {
            "id": f"{name}-chain",
            "priority": dice.randint(-2, 5),
            "tasks": [
                {"id": f"c{n}", **outside, "depends_on": [f"c{n - 1}"] if n else []}
                for n in range(4)
            ],
        }
        yield {
            "id": f"{name}-critic",
            "tasks": [
                {"id": "draft", **outside},
                {
                    "id": "critic",
                    **outside,
                    "type": "critic",
                    "target": "draft",
                    "depends_on": ["draft"],
                },
            ],
        }
        yield {
            "id": f"{name}-skips",
            "tasks": [
                {
                    "id": "bad",
                    "kind": "sleep",
                    "input": {"seconds": 60},
                    "timeout_s": 0.1,
                    "max_retries": 0,
                    "on_failure": "continue",
                },
                {"id": "after", "kind": "echo", "depends_on": ["bad"]},
            ],
        }
        yield {"id": f"{name}-cancelled", "tasks": [{"id": "long", **outside}]}
