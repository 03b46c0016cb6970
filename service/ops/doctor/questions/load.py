"""Shed load or scale out? What the worker pool refuses and holds, and how work comes and goes."""

from functools import partial
from typing import Any

from msgspec import structs

from service.executor.running.overruns import OverrunningHandler
from service.ops.doctor.evidence import Evidence, Load, Waiting
from service.ops.doctor.report import Examined, Finding, Severity, answered, cannot_tell

GREW_BY = 20  # tasks; a smaller change means nothing
GREW_FASTER = 1.1  # arrivals against ends
SHORTEST_WINDOW_S = 20.0
REJECT_SHARE = 0.05
FULL = 0.9
NEARLY = 0.8  # of the bytes that unfinished plans may take
MOST_SHOWN = 10

_finding = partial(Finding, question="load", severity="warning")


def examine(evidence: Evidence) -> Examined:
    """Answer the question."""
    seen = evidence.load
    if seen is None:
        return cannot_tell("load", evidence.why_not)
    numbers = _numbers(seen)
    waiting = evidence.claiming.waiting if evidence.claiming else ()
    findings = [
        _overrunning(seen, numbers, evidence.url),
        _rejecting(seen, numbers, evidence.url),
        _hosts(seen, evidence.url),
        _growing(seen, numbers, waiting, evidence.url),
        _unfinished(seen, evidence.url),
    ]
    return answered("load", _says(seen, numbers), numbers, findings)


def _numbers(seen: Load) -> dict[str, Any]:
    numbers: dict[str, Any] = {"backlog": seen.backlog, "backlog_before": seen.backlog_before}
    if seen.capacity is not None:
        numbers |= {
            "in_flight": seen.in_flight,
            "queued": seen.queued,
            "capacity": seen.capacity,
            "overrunning": len(seen.overruns),
            "hosts": len(seen.hosts),
            "hosts_memory_bytes": sum(each.memory_bytes for each in seen.hosts),
        }
    if seen.most_unfinished_bytes is not None:
        numbers["unfinished_bytes"] = seen.unfinished_bytes
    if window := seen.window:
        claimed = window.total("agent.task.claim.success.total")
        grew = seen.backlog - (seen.backlog_before or 0)
        arrived, seconds = max(claimed + grew, 0), max(window.seconds, 0.001)
        numbers |= {
            "window_s": round(window.seconds, 1),
            "became_claimable": arrived,
            "became_claimable_per_s": round(arrived / seconds, 2),
            "ended": seen.ended,
            "ended_per_s": round((seen.ended or 0) / seconds, 2),
            "dispatched": window.total("agent.task.dispatch.success.total"),
            "rejected": _rejects(seen),
        }
    return numbers


def _rejects(seen: Load) -> dict[str, int]:
    """Refused dispatches by reason; a drain refuses by design."""
    by_reason = seen.window.by("agent.task.dispatch.reject.total") if seen.window else {}
    return {reason: count for reason, count in by_reason.items() if reason != "draining"}


def _says(seen: Load, numbers: dict[str, Any]) -> str:
    says = f"{seen.backlog} wait"
    if seen.capacity is not None:
        says += f", {seen.in_flight} run and {seen.queued} queue of {seen.capacity} places"
    if seen.overruns:
        says += f", {len(seen.overruns)} of them held by handlers that ignore that they must stop"
    if seen.hosts:
        processes = "process" if len(seen.hosts) == 1 else "processes"
        says += f", in {len(seen.hosts)} worker host {processes}"
    if seen.window is None:
        return says if seen.ended is None else f"{says}; {seen.ended} attempts ended lately"
    return (
        f"{says}; in {seen.window.seconds:.0f} s {numbers['became_claimable']} became claimable "
        f"and {numbers['ended']} ended, {sum(numbers['rejected'].values())} dispatches rejected"
    )


def _overrunning(seen: Load, numbers: dict[str, Any], url: str) -> Finding | None:
    if not seen.overruns:
        return None
    longest = max(seen.overruns, key=lambda each: each.for_s)
    count = len(seen.overruns)
    severity: Severity = "critical" if count >= (seen.threads or 0) else "warning"
    return _finding(
        code="HandlersOverrun",
        severity=severity,
        summary=f"{count} of {seen.threads} threads are held by handlers whose attempt is "
        f"over; the longest, {longest.handler} of {longest.plan_id}/{longest.task_id}, for "
        f"{longest.for_s:.0f} s",
        evidence={**numbers, "handlers": [_shown(each) for each in seen.overruns[:MOST_SHOWN]]},
        meaning=f"The handlers of {_kinds(seen)} were asked to stop and run on, so each keeps "
        "its thread until it returns. More instances do not help: declare them with "
        'pool="process", which can be ended, or give their blocking calls a time-out. '
        "A restart frees the threads now.",
        command=f"curl -s '{url}/v1/plans/{longest.plan_id}/tasks/{longest.task_id}'",
        alert="HandlersOverrun",
    )


def _kinds(seen: Load) -> str:
    return ", ".join(sorted({f"'{each.kind}'" for each in seen.overruns}))


def _shown(overrun: OverrunningHandler) -> dict[str, Any]:
    return structs.asdict(overrun) | {"for_s": round(overrun.for_s, 1)}


def _hosts(seen: Load, url: str) -> Finding | None:
    replaced = seen.window.total("agent.task.worker.host.replaced.total") if seen.window else 0
    silent = sum(each.state == "silent" for each in seen.hosts)
    if not replaced and not silent:
        return None
    return _finding(
        code="WorkerHostsEnd",
        summary=f"{replaced} worker host processes were replaced, {silent} do not answer",
        evidence={
            "replaced": replaced,
            "silent": silent,
            "hosts": [structs.asdict(each) for each in seen.hosts],
        },
        meaning="A worker host process that dies fails the tasks that it ran (process_died); one "
        "that ignores a stop or does not answer gets no more tasks and is ended. The log says how "
        "each ended (host_ended, host_ignores_stop, host_does_not_answer) and which handlers it "
        'ran. Declare a kind that kills or holds its host with pool="process", or bound its memory '
        "and calls.",
        command=f"curl -s '{url}/v1/ops/status'",
    )


def _rejecting(seen: Load, numbers: dict[str, Any], url: str) -> Finding | None:
    rejected = sum(_rejects(seen).values())
    tried = rejected + numbers.get("dispatched", 0)
    if not rejected or rejected < REJECT_SHARE * tried:
        return None
    return _finding(
        code="DispatchRejecting",
        summary=f"{rejected} of {tried} claimed tasks found no place in the worker pool",
        evidence=numbers,
        meaning="The executor claims more than it can hold; each rejected claim was released "
        "at once, so nothing is lost but time. Give it room (executor.worker.core_size or "
        "queue_capacity), or claim less (executor.claim.max_per_tick).",
        command=f"curl -s '{url}/actuator/metrics/agent.task.dispatch.reject.total'",
        alert="DispatchRejecting",
    )


def _growing(
    seen: Load, numbers: dict[str, Any], waiting: tuple[Waiting, ...], url: str
) -> Finding | None:
    window = seen.window
    if window is None or seen.backlog_before is None or window.seconds < SHORTEST_WINDOW_S:
        return None
    grew = seen.backlog - seen.backlog_before
    if grew < GREW_BY or numbers["became_claimable"] < GREW_FASTER * (seen.ended or 0):
        return None
    most = max(waiting, key=lambda each: each.tasks, default=None)
    shed = most.plan_id if most else "PLAN"
    return _finding(
        code="BacklogGrowing",
        summary=f"the backlog grew by {grew} to {seen.backlog} in {window.seconds:.0f} s: "
        f"{numbers['became_claimable_per_s']:g} tasks arrive and "
        f"{numbers['ended_per_s']:g} end a second",
        evidence=numbers,
        meaning=_advice(seen, most),
        command=f"curl -s -X POST '{url}/v1/plans/{shed}/pause' "
        "-H 'Content-Type: application/json' -d '{\"reason\": \"shedding load\"}'",
        alert="BacklogGrowing",
    )


def _unfinished(seen: Load, url: str) -> Finding | None:
    most = seen.most_unfinished_bytes
    if most is None or seen.unfinished_bytes < NEARLY * most:
        return None
    return _finding(
        code="UnfinishedBytesHigh",
        summary=f"unfinished plans take {seen.unfinished_bytes:,} of {most:,} bytes",
        evidence={"bytes": seen.unfinished_bytes, "most": most},
        meaning="At the bound new plans are refused (429); what runs goes on. Let plans end or "
        "cancel some; raise memory.unfinished_bytes on every instance that has the memory.",
        command=f"curl -s '{url}/v1/plans?status=RUNNING'",
        alert="UnfinishedBytesHigh",
    )


def _advice(seen: Load, most: Waiting | None) -> str:
    busy = (seen.in_flight or 0) + (seen.queued or 0)
    if seen.overruns and 2 * len(seen.overruns) >= (seen.threads or 0):
        return (
            f"{len(seen.overruns)} of {seen.threads} threads here are held by handlers of "
            f'{_kinds(seen)} that ignore that they must stop: declare them with pool="process". '
            "Scaling out does not help. Until then shed load: pause a plan that can wait."
        )
    kind = f"'{most.kind}'" if most else "the kinds that wait"
    if seen.capacity and busy >= FULL * seen.capacity:
        return (
            f"The workers here are full ({busy} of {seen.capacity} places), so scale out: raise "
            "executor.worker.core_size or start another instance on the same log. Until then "
            "shed load: pause a plan that can wait."
        )
    return (
        f"The executor here has room, so it is workers for {kind} that are missing: start more of "
        "them. Until then shed load: pause a plan that can wait."
    )
