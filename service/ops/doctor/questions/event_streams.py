"""Is SSE whole? What was pushed, lost and replayed, and whether a canary got every event."""

from functools import partial
from typing import Any

import msgspec

from service.ops.doctor.evidence import Canary, Evidence, Streams
from service.ops.doctor.report import Examined, Finding, answered, cannot_tell

FAIL_SHARE = 0.01
SLOW_S = 0.5  # one batch of a replay
SLOW_SHARE = 0.1
GOODBYES = frozenset({"disconnected"})  # a browser that closes its tab is no trouble

_finding = partial(Finding, question="event_streams", severity="warning")


def examine(evidence: Evidence) -> Examined:
    """Answer the question."""
    seen = evidence.streams
    if seen is None:
        return cannot_tell("event_streams", evidence.why_not)
    numbers = _numbers(seen)
    findings = [
        _failing(numbers, evidence.url),
        _gaps(numbers, evidence.url),
        _slow(numbers, evidence.url),
    ]
    says = (
        f"{seen.connections} streams open; in {seen.window.seconds:.0f} s {numbers['pushed']} "
        f"events pushed, {sum(numbers['push_failed'].values())} failed, "
        f"{numbers['resumes'].get('gap', 0)} of {sum(numbers['resumes'].values())} connections "
        "met a gap"
    )
    return answered("event_streams", says, numbers, findings)


def examine_canary(canary: Canary, url: str) -> Examined:
    """What the canary proved, or what it found broken."""
    numbers = {"canary": msgspec.structs.asdict(canary)}
    if canary.failed is not None:
        return answered("event_streams", f"canary: {canary.failed}", numbers, [_blind(canary, url)])
    if canary.broken is not None:
        return answered(
            "event_streams", f"canary: {canary.broken}", numbers, [_not_whole(canary, url)]
        )
    if not canary.events:
        says = "canary: connected and resumed; the log holds no events to compare"
    else:
        says = (
            f"canary: {canary.events} events from {canary.first} to {canary.last}, resumed after "
            f"{canary.resumed_after}, are what {canary.witness} has: none missing, none twice"
        )
    return answered("event_streams", says, numbers, [])


def _numbers(seen: Streams) -> dict[str, Any]:
    window = seen.window
    replayed = window.observed("agent.sse.replay.duration")
    failed = window.by("agent.sse.push.fail.total")
    return {
        "connections": seen.connections,
        "window_s": round(window.seconds, 1),
        "pushed": window.total("agent.sse.push.attempt.total"),
        "push_failed": {why: count for why, count in failed.items() if why not in GOODBYES},
        "resumes": window.by("agent.sse.resume.total"),
        "replay_batches": replayed.count,
        "replay_batches_slow": replayed.above(SLOW_S),
    }


def _failing(numbers: dict[str, Any], url: str) -> Finding | None:
    failed, pushed = sum(numbers["push_failed"].values()), numbers["pushed"]
    if not failed or failed < FAIL_SHARE * pushed:
        return None
    return _finding(
        code="SsePushFailing",
        summary=f"{failed} of {pushed} events could not be written to their client",
        evidence=numbers,
        meaning="Clients do not read as fast as events come, and were disconnected with a "
        "cursor from which they can resume. Let them ask for fewer types or one plan.",
        command=f"curl -s '{url}/actuator/metrics/agent.sse.push.fail.total'",
        alert="SsePushFailing",
    )


def _gaps(numbers: dict[str, Any], url: str) -> Finding | None:
    gaps = numbers["resumes"].get("gap", 0)
    if not gaps:
        return None
    return _finding(
        code="SseResumeGaps",
        summary=f"{gaps} clients came with a cursor that the log cannot honour",
        evidence=numbers,
        meaning="Their cursor belongs to another log (a new one was made), or lies beyond its "
        "end. They were sent a `gap` and went on from what exists; state that they keep "
        "should be built again.",
        command=f"curl -s '{url}/v1/ops/status'",
        alert="SseResumeGaps",
    )


def _slow(numbers: dict[str, Any], url: str) -> Finding | None:
    slow, batches = numbers["replay_batches_slow"], numbers["replay_batches"]
    if not slow or slow < SLOW_SHARE * batches:
        return None
    return _finding(
        code="SseReplaySlow",
        summary=f"{slow} of {batches} batches of replay took longer than {SLOW_S:g} s",
        evidence=numbers,
        meaning="The log answers slowly, or many clients resume at once. Resuming clients "
        "come late; nothing is lost.",
        command=f"curl -s '{url}/actuator/metrics/agent.sse.replay.duration'",
        alert="SseReplaySlow",
    )


def _not_whole(canary: Canary, url: str) -> Finding:
    return _finding(
        code="SseNotWhole",
        severity="critical",
        summary=f"the event stream is not what the log has: {canary.broken}",
        evidence=msgspec.structs.asdict(canary),
        meaning="Promise 2 is broken: a client that resumes does not see exactly what follows its "
        "cursor. Clients that keep state should read the stream again with after=0, and "
        "this is a bug to be reported.",
        command=f"curl -sN '{url}/v1/events?after={canary.first - 1}'",
    )


def _blind(canary: Canary, url: str) -> Finding:
    return _finding(
        code="SseCanaryFailed",
        severity="unknown",
        summary=f"the canary could not look at the event stream: {canary.failed}",
        evidence=msgspec.structs.asdict(canary),
        meaning="Whether the stream is whole is not known. It is refused (a token, too many "
        "connections) or does not answer in time.",
        command=f"curl -sN '{url}/v1/events'",
    )
