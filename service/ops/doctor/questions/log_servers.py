"""How the log's servers are: replicas that do not keep up, clocks. A part of the internals."""

from functools import partial

import msgspec

from service.core.conditions import CLOCKS_DIFFER_S
from service.ops.doctor.evidence import LogHealth
from service.ops.doctor.report import Finding

_finding = partial(Finding, question="internals", severity="warning")


def findings(log: LogHealth) -> list[Finding | None]:
    """What the leaders of the streams say of their followers, and the clocks against each other."""
    return [_replica_behind(log), _clock_stepped(log), _clocks_differ(log)]


def _replica_behind(log: LogHealth) -> Finding | None:
    if not log.late_replicas:
        return None
    return _finding(
        code="ReplicaBehind",
        summary="; ".join(map(str, log.late_replicas)),
        evidence={"replicas": [msgspec.structs.asdict(each) for each in log.late_replicas]},
        meaning="The other replicas still take every write. If they lose one more server, too few "
        "may be left, and every write is refused. Start or wake this server, or mend the way "
        "to it: it catches up by itself. While it is late restart no other one.",
        command=f"nats stream info {log.late_replicas[0].stream}",
        alert="ReplicaBehind",
    )


def _clock_stepped(log: LogHealth) -> Finding | None:
    by_s = log.clock_stepped_s
    if not by_s:
        return None
    way = "forward" if by_s > 0 else "back"
    return _finding(
        code="LogClockStepped",
        summary=f"the log server's clock was set {way} by {abs(by_s):.1f} s",
        evidence={"seconds": round(by_s, 3)},
        meaning="Leases go on for as long as they were granted, so no live worker loses its "
        "task. After a step back, a task whose owner has died is taken over only when the "
        "clock has come as far again. Let NTP slew the clock instead of stepping it.",
        command="chronyc tracking",
    )


def _clocks_differ(log: LogHealth) -> Finding | None:
    ahead_s = log.clock_ahead_s
    if abs(ahead_s) < CLOCKS_DIFFER_S:
        return None
    way = "ahead of" if ahead_s > 0 else "behind"
    return _finding(
        code="ClocksDiffer",
        summary=f"this instance's clock is {abs(ahead_s):.0f} s {way} the log server's",
        evidence={"seconds": round(ahead_s, 3)},
        meaning="Leases and everything in the log go by the log server's clock, so no task is "
        "harmed. Log lines, traces and the ends of tokens go by this instance's. If other "
        "instances say the same, the log server's clock is the wrong one.",
        command="chronyc tracking",
    )
