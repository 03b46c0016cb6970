"""Is claiming congested, or spinning idle? Polls, claims and conflicts against what waits."""

from difflib import get_close_matches
from functools import partial
from typing import Any
from urllib.parse import quote

import msgspec

from service.core.demand import NOT_ASKED_S
from service.ops.doctor.evidence import Claiming, Evidence, Waiting
from service.ops.doctor.report import Examined, Finding, answered, cannot_tell

STARVED_S = 30.0  # a claimable task should be taken within a poll or two
MOST_WAITING = 5  # kinds shown
CONTENDED_SHARE = 0.1  # DESIGN §5: fewer than a tenth of the appends may lose their race
CONTENDED_TRIES = 20
SPINNING_PER_S = 10.0  # empty requests a second; a worker with `wait_s` asks far less often
SPINNING_SHARE = 0.95

_finding = partial(Finding, question="claiming", severity="warning")


def examine(evidence: Evidence) -> Examined:
    """Answer the question."""
    seen = evidence.claiming
    if seen is None:
        return cannot_tell("claiming", evidence.why_not)
    numbers = _numbers(seen)
    findings = [
        *_not_asked_for(seen, numbers, evidence.url),
        _starved(seen, numbers, evidence.url),
        _contended(seen, numbers, evidence.url),
        _spinning(seen, numbers, evidence.url),
    ]
    return answered("claiming", _says(seen, numbers), numbers, findings)


def _numbers(seen: Claiming) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "claimable_ready": seen.ready,
        "claimable_refining": seen.refining,
        "oldest_age_s": round(seen.oldest_age_s, 1),
    }
    if recent := seen.recent:
        numbers |= {
            "window_s": round(recent.seconds, 1),
            "polls": recent.total("agent.task.claim.poll.total"),
            "claimed": recent.total("agent.task.claim.success.total"),
            "empty": recent.total("agent.task.claim.empty.total"),
            "reclaimed": recent.total("agent.task.claim.reclaimed.total"),
            "conflicts": recent.total("agent.task.claim.conflict.total"),
        }
    if seen.asking is not None:
        numbers["asking_now"] = seen.asking
    return numbers


def _says(seen: Claiming, numbers: dict[str, Any]) -> str:
    waits = f"{seen.ready + seen.refining} claimable"
    if seen.ready + seen.refining:
        waits += f", the oldest for {seen.oldest_age_s:.1f} s"
    if seen.recent is None:
        return f"{waits}; how often workers ask is known to a running instance only"
    return (
        f"{waits}; in {seen.recent.seconds:.0f} s {numbers['polls']} asked, {numbers['claimed']} "
        f"tasks claimed, {numbers['empty']} went empty, {numbers['conflicts']} lost a race"
    )


def _starved(seen: Claiming, numbers: dict[str, Any], url: str) -> Finding | None:
    overdue = [each for each in seen.waiting if each.oldest_age_s >= STARVED_S]
    if not overdue or not _claims_are_stuck(seen, numbers):
        return None
    kinds = ", ".join(f"{each.kind} ({each.tasks})" for each in overdue[:MOST_WAITING])
    oldest = overdue[0]
    foreign = [each.kind for each in overdue if each.kind not in seen.own_kinds]
    return _finding(
        code="ClaimStarved",
        summary=f"tasks wait up to {oldest.oldest_age_s:.0f} s and no worker claims them: {kinds}",
        evidence={**numbers, "waiting": [_shown(each) for each in overdue[:MOST_WAITING]]},
        meaning=_why_starved(foreign),
        command=f"curl -s '{url}/v1/plans/{oldest.plan_id}/tasks/{oldest.task_id}'",
        alert="ClaimStarved",
    )


def _not_asked_for(seen: Claiming, numbers: dict[str, Any], url: str) -> list[Finding]:
    if seen.recent is None:  # only a running instance knows which workers ask
        return []
    kinds = [each for each in seen.waiting if _has_no_worker(each, seen.own_kinds)]
    return [_without_worker(each, seen, numbers, url) for each in kinds[:MOST_WAITING]]


def _has_no_worker(waiting: Waiting, own_kinds: tuple[str, ...]) -> bool:
    """No worker asks for this kind, none is busy with it, and no handler here is for it."""
    asked = waiting.asked_s is not None and waiting.asked_s < NOT_ASKED_S
    if asked or waiting.running or waiting.kind in own_kinds:
        return False
    return waiting.oldest_age_s >= NOT_ASKED_S


def _without_worker(waiting: Waiting, seen: Claiming, numbers: dict[str, Any], url: str) -> Finding:
    kind, near = waiting.kind, get_close_matches(waiting.kind, seen.known_kinds, n=1)
    when = "ever" if waiting.asked_s is None else f"for {waiting.asked_s:.0f} s"
    advice = f" Did you mean '{near[0]}'?" if near and near[0] != kind else ""
    return _finding(
        code="KindWithoutWorker",
        summary=f"no worker has asked for kind '{kind}' {when}; {_waits(waiting.tasks)} for one",
        evidence={**numbers, "waiting": [_shown(waiting)]},
        meaning=f"The kind is misspelt, or its workers are not running.{advice} A task keeps the "
        "kind that it was submitted with: start a worker for it, or cancel the plan and submit it "
        "with the right kind.",
        command=f"curl -s '{url}/v1/tasks?kind={quote(kind)}&status=READY'",
    )


def _claims_are_stuck(seen: Claiming, numbers: dict[str, Any]) -> bool:
    """Nothing is claimed, or those who ask go empty while these tasks wait: they want others."""
    return seen.recent is None or numbers["claimed"] == 0 or numbers["empty"] > numbers["claimed"]


def _why_starved(foreign: list[str]) -> str:
    if foreign:
        return (
            f"No executor here has a handler for {', '.join(foreign[:MOST_WAITING])}: these kinds "
            "wait for workers outside, and none asks for them. Start such workers."
        )
    return (
        "These kinds have handlers here, so the executor is full, stopped or draining: "
        "see the answer on load."
    )


def _contended(seen: Claiming, numbers: dict[str, Any], url: str) -> Finding | None:
    if seen.recent is None:
        return None
    lost, tries = numbers["conflicts"], numbers["conflicts"] + numbers["claimed"]
    if tries < CONTENDED_TRIES or lost < CONTENDED_SHARE * tries:
        return None
    return _finding(
        code="ClaimContended",
        summary=f"{lost} of {tries} claims lost their race against another instance",
        evidence=numbers,
        meaning="Instances fight over the same tasks: their clocks of folding differ too much "
        "(one lags behind the log), or there are more of them than work.",
        command=f"curl -s '{url}/v1/ops/status'",
    )


def _spinning(seen: Claiming, numbers: dict[str, Any], url: str) -> Finding | None:
    recent = seen.recent
    if recent is None or recent.seconds <= 0 or seen.ready + seen.refining:
        return None
    empty, polls = numbers["empty"], numbers["polls"]
    if empty / recent.seconds < SPINNING_PER_S or empty < SPINNING_SHARE * polls:
        return None
    return _finding(
        code="ClaimSpinning",
        summary=f"{empty / recent.seconds:.0f} asks a second find nothing",
        evidence={**numbers, "empty_per_s": round(empty / recent.seconds, 1)},
        meaning="Workers poll in a loop although nothing can be claimed. It costs CPU on both "
        "sides and delays no task. Let them wait: `wait_s` up to 30 is answered at once when "
        "there is work.",
        command=f"""curl -s -X POST '{url}/v1/claims' -H 'Content-Type: application/json' """
        """-d '{"owner": "patient", "kinds": ["none"], "wait_s": 5}'""",
        alert="ClaimSpinning",
    )


def _shown(waiting: Waiting) -> dict[str, Any]:
    return {**msgspec.structs.asdict(waiting), "oldest_age_s": round(waiting.oldest_age_s, 1)}


def _waits(tasks: int) -> str:
    return "1 task waits" if tasks == 1 else f"{tasks} tasks wait"
