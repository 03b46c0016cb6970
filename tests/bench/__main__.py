"""`make bench`: runs every measurement, prints JSON lines on stdout and a table on stderr."""

import argparse
import sys

import uvloop

from service.runtime.tuning import collect_seldom, switch_often
from tests.bench import (
    access_cost,
    audit_cost,
    cycles,
    executor,
    hosts,
    instances,
    memory,
    over_http,
    page,
    plan_size,
    rebuilds,
    retention,
    runner,
    sse_fanout,
    sse_idle,
    sse_latency,
    sse_replay,
    start_latency,
    waiting,
    worker_kit,
)
from tests.bench.runner import Measure

MEASURES: dict[str, Measure] = {
    "cycles": cycles.measure,
    "access": access_cost.measure,
    "executor": executor.measure,
    "hosts": hosts.measure,
    "waiting": waiting.measure,
    "audit": audit_cost.measure,
    "http": over_http.measure,
    "worker_kit": worker_kit.measure,
    "instances": instances.measure,
    "start": start_latency.measure,
    "rebuild": rebuilds.measure,
    "retention": retention.measure,
    "plan_size": plan_size.measure,
    "memory": memory.measure,
    "page": page.measure,
    "sse_replay": sse_replay.measure,
    "sse_fanout": sse_fanout.measure,
    "sse_idle": sse_idle.measure,
    "sse_latency": sse_latency.measure,
}


def main() -> None:
    """Run what was asked for, all by default; ends with 1 if something failed or broke a bound."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help=", ".join(MEASURES))
    parser.add_argument("--scale", type=float, default=1.0, help="size of the loads (default 1)")
    arguments = parser.parse_args()
    unknown = set(arguments.measures) - set(MEASURES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(MEASURES)}")
    asked = {name: MEASURES[name] for name in arguments.measures or MEASURES}
    collect_seldom()  # as a served instance does
    switch_often()
    sys.exit(1 if uvloop.run(runner.run(asked, arguments.scale)) else 0)


if __name__ == "__main__":
    main()
