"""Writes docs/reference/faults.md: what each fault of a run cost, and how soon it was named."""

import os
import time
from collections.abc import Iterable
from pathlib import Path

from tests.cluster.checks.health import DOCTOR_NAMES_S, NAMES, OK, refused, silences
from tests.cluster.ports import NUMBERS
from tests.cluster.record import Diagnosis, FaultRun, History, Readiness
from tests.cluster.watch import NOTICES

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "faults.md"

_HEAD = """# What faults of a cluster cost

This page is written by the long form of `tests/cluster` (`make test-all`): do not edit it.

Three nats-servers (R3) and three Holdfast instances run behind a proxy that cuts, delays and lags
their links. Workers claim, die, freeze and move between the instances, and event readers hop from
instance to instance by cursor. The run of {date} wrote {facts:,} facts in {minutes:.0f} minutes,
made {calls:,} calls and served {readers} readers, on a machine with {cores} cores. It showed
{verdict}.{note}

- *election*: seconds until the nodes that the fault spares agreed on a leader; NATS takes 4 to 9 s.
- *majority*, *moved*: the longest time in which an instance acknowledged no write. *Majority* are
  the instances that reached two healthy nodes all the time; *moved* are those that were connected
  to a node which was frozen or cut off, and had to leave it. Instances that the fault itself
  stopped, froze or cut off are not counted. Without a quorum the time counts from the fault's end.
- *refused*: calls that were answered 503 or not at all.
- *readyz*, *doctor*: seconds until the first instance reported the fault. `/readyz` reports it when
  it is not ready, does not answer, or is ready and names a node that does not keep up, or its
  clock. `holdfast doctor` reports it by a finding about the log, a node, a clock or the instance.
  `-`: no report was due, as every node was heard and kept up, and every write was taken in time.
- *well again*: seconds from the end of the fault until all instances are ready and take writes, and
  no doctor names the fault. The nodes may need longer to catch up with each other.
- *races*: claims that lost their race to another instance, of all claims.

| fault | election, s | majority, s | moved, s | refused | readyz | doctor | well again | races |
|---|---:|---:|---:|---:|---:|---:|---:|---:|
"""


def write_page(history: History, violations: int, page: Path = PAGE, note: str = "") -> None:
    """Replace the page by this run's; ``note`` says what was special about the run."""
    page.parent.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{row(fault, history)}\n" for fault in history.faults)
    page.write_text(_head(history, violations, note) + rows, encoding="utf-8")


def _head(history: History, violations: int, note: str) -> str:
    times = [call.asked_at for call in history.calls]
    return _HEAD.format(
        date=time.strftime("%Y-%m-%d", time.gmtime(max(times))),
        facts=len(history.facts),
        minutes=(max(times) - min(times)) / 60,
        calls=len(history.calls),
        readers=len(history.readings),
        cores=os.cpu_count(),
        note=f" {note}" if note else "",
        verdict="no violation" if not violations else f"{violations} violations",
    )


def row(fault: FaultRun, history: History) -> str:
    """One line of the table."""
    majority = set(NUMBERS) - {*fault.apart, *fault.stranded}
    cells = (
        fault.name,
        _shown(history.led_again_s(fault) if fault.quorum else None),
        _shown(_longest(fault, history, majority)),
        _shown(_longest(fault, history, set(fault.stranded) - set(fault.apart))),
        str(refused(history.calls, fault)),
        _shown(_first(fault, (each for each in history.readiness if _unready(each)))),
        _shown(_first(fault, (each for each in history.diagnoses if _naming(each)))),
        _shown(fault.cleared - fault.healed),
        f"{fault.claims_lost} of {fault.claims_won + fault.claims_lost}",
    )
    return f"| {' | '.join(cells)} |"


def _longest(fault: FaultRun, history: History, instances: Iterable[int]) -> float | None:
    """Seconds without an acknowledged write while the fault lasted, on the worst of these."""
    since = fault.began if fault.quorum else fault.healed
    lasted = [
        until - max(begun, since)
        for instance in instances
        for begun, until in silences(history, instance)
        if begun < fault.settled and since < until
    ]
    return max(lasted, default=None)


def _unready(each: Readiness) -> bool:
    return each.status != OK or bool(each.warnings)


def _naming(each: Diagnosis) -> bool:
    return bool((NAMES | NOTICES).intersection(each.codes))


def _first(fault: FaultRun, said: Iterable[Readiness | Diagnosis]) -> float | None:
    """Seconds from the fault's beginning to the first of these before its end."""
    until = max(fault.healed, fault.began + DOCTOR_NAMES_S)
    return min(
        (each.at - fault.began for each in said if fault.began <= each.at <= until), default=None
    )


def _shown(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f}"
