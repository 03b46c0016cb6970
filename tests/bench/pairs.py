"""Compares two checkouts, or two Pythons: runs the same measurements in turn, so noise hits both.

python -m tests.bench.pairs OTHER_CHECKOUT MEASURE... [--rounds N] [--scale S] [--python OTHER]
"""

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parents[2]
Values = dict[str, list[float]]


def run(checkout: Path, python: str, measures: list[str], scale: float) -> dict[str, float]:
    """Every number of one run there, by the measure's name and the number's own."""
    path = os.pathsep.join([str(checkout), str(checkout / "service/worker_kit/src")])
    done = subprocess.run(
        [python, "-m", "tests.bench", *measures, "--scale", str(scale)],
        cwd=checkout, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, check=False,
    )  # fmt: skip
    if done.returncode not in (0, 1):  # 1: a bound is broken
        done.check_returncode()
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"{")]
    return dict(number for line in lines if "measure" in line for number in _numbers(line))


def _numbers(line: dict[str, Any]) -> list[tuple[str, float]]:
    name = line["measure"]
    seen = {f"{name}: {each}": value for each, value in line["seen"].items()}
    return [(name, line["value"]), *((n, v) for n, v in seen.items() if isinstance(v, float))]


def main() -> None:
    """Alternate, and print the medians, their spread and the median of the ratios of each round."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pairs", description=__doc__)
    parser.add_argument("other", type=Path)
    parser.add_argument("measures", nargs="+", metavar="MEASURE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=0.5)
    parser.add_argument("--python", default=sys.executable, help="runs the other checkout")
    arguments = parser.parse_args()
    here: Values = defaultdict(list)
    there: Values = defaultdict(list)
    sides = (
        (arguments.other.resolve(), arguments.python, there),
        (HERE, sys.executable, here),
    )
    for _ in range(arguments.rounds):
        for checkout, python, values in sides:
            seen = run(checkout, python, arguments.measures, arguments.scale)
            for name, value in seen.items():
                values[name].append(value)
    for name, values in here.items():
        if len(there[name]) == len(values):
            ratios = [a / b for a, b in zip(values, there[name], strict=True) if b]
            print(
                f"{median(ratios or [0]):6.3f} x  {_shown(there[name])} -> {_shown(values)}  {name}"
            )


def _shown(values: list[float]) -> str:
    return f"{median(values):10.4g} ({min(values):.4g} to {max(values):.4g})"


if __name__ == "__main__":
    main()
