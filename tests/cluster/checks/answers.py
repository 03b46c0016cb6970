"""What the answers of all calls must be, in the light of the log as it stands at the end."""

from collections.abc import Iterator

from tests.cluster.fold import Fold
from tests.cluster.record import NO_ANSWER, Call, Fact, History, Violation

MARGIN_S = 1.0  # what the way to the instance and back may cost on a busy machine
RESULTS = {"complete": "task.completed", "fail": "task.failed", "release": "task.released"}
OWNED = {"start": "task.started", "heartbeat": "task.heartbeat", **RESULTS}
TOGGLES = {"pause": "paused", "resume": "resumed", "cancel": "cancelled"}
STATUSES = {
    "pause": ("PAUSED",),
    "resume": ("READY", "RUNNING"),
    "cancel": ("CANCELLED",),
    "retry": ("READY",),
}
GOOD = (200, 201)
CONFLICT = 409
NOT_FOUND = 404
UNAVAILABLE = 503
EXPECTED = (*GOOD, NOT_FOUND, CONFLICT, UNAVAILABLE, NO_ANSWER)
SERVER_ERROR = 500

ACKNOWLEDGED = "an acknowledged write stands in the log at its sequence"
TRUE_HOLDER = "the true holder is never refused"
OPERATOR = "an operator is refused only what the log forbids"
KNOWN = "what was acknowledged is never answered 404"
NO_ERROR = "no answer is a 500, and each refusal is a problem of the contract"
IN_TIME = "every call is answered within its time-out"


def acknowledged(history: History, fold: Fold) -> Iterator[Violation]:
    """See `ACKNOWLEDGED`: one that repeats an earlier write points to a log that holds it."""
    facts = {fact.sequence: fact for fact in history.facts}
    written = _written(history.facts)
    for call in history.calls:
        if call.status not in GOOD:
            continue
        if wrong := _unfounded(call, facts, written, fold):
            yield _violation(ACKNOWLEDGED, call, wrong)


def _written(facts: list[Fact]) -> dict[tuple[object, ...], float]:
    """When the first fact of each kind was written, by all that names it."""
    first: dict[tuple[object, ...], float] = {}
    for fact in facts:
        first.setdefault(_name(fact), fact.at)
    return first


def _name(fact: Fact) -> tuple[object, ...]:
    owner, attempt = fact.data.get("owner", ""), fact.data.get("attempt", 0)
    return fact.type, fact.plan_id, fact.task_id, owner, attempt


def _unfounded(
    call: Call,
    facts: dict[int, Fact],
    written: dict[tuple[object, ...], float],
    fold: Fold,
) -> str:
    """What the log says instead of this acknowledgement; empty when it agrees."""
    if call.verb in TOGGLES or call.verb == "retry":
        return _without_effect(call, written, fold)
    wanted = _promised(call)
    if wanted is None:
        return ""
    repeats = call.said == "duplicate" or (call.verb == "submit" and call.status == 200)
    if repeats:
        stands = written.get(wanted, call.answered_at + 1) <= call.answered_at
        return "" if stands else f"nothing of the kind was written before: {wanted}"
    found = facts.get(call.sequence)
    if found is None:
        return f"there is nothing at {call.sequence}"
    return "" if _name(found) == wanted else f"{_name(found)} stands there"


def _promised(call: Call) -> tuple[object, ...] | None:
    """The fact that an acknowledgement of this call promises."""
    if call.verb == "submit":
        return "plan.submitted", call.plan_id, "", "", 0
    kind = "task.claimed" if call.verb == "claim" else OWNED.get(call.verb)
    if kind is None:
        return None
    return kind, call.plan_id, call.task_id, call.owner, call.attempt


def _without_effect(call: Call, written: dict[tuple[object, ...], float], fold: Fold) -> str:
    """Only one client operates each of these plans, one call after the other."""
    if call.said not in STATUSES[call.verb]:
        return f"it says {call.said}"
    if call.verb == "retry":
        at = written.get(("plan.retried", call.plan_id, "", "", 0), call.answered_at + 1)
        return "" if at <= call.answered_at else "no retry is in the log"
    plan = fold.plans.get(call.plan_id)
    toggles = [what for at, what in plan.toggles if at <= call.answered_at] if plan else []
    return "" if toggles and toggles[-1] == TOGGLES[call.verb] else f"the log has {toggles[-1:]}"


def true_holder(history: History, fold: Fold) -> Iterator[Violation]:
    """See `TRUE_HOLDER`: a refusal needs a fact that ended the lease before the answer."""
    for call in history.calls:
        if call.status != CONFLICT or call.verb not in OWNED:
            continue
        lease = fold.lease((call.plan_id, call.task_id), call.owner, call.attempt)
        if lease is None:
            continue
        if lease.ended is None or lease.ended.at > call.answered_at:
            yield _violation(
                TRUE_HOLDER, call, f"the lease was claimed at {lease.claimed.sequence}"
            )
        elif lease.ended.type == RESULTS.get(call.verb) and _is_newest(fold, call, lease.attempt):
            yield _violation(TRUE_HOLDER, call, f"its own result stands at {lease.ended.sequence}")


def _is_newest(fold: Fold, call: Call, attempt: int) -> bool:
    """Whether the task had not been claimed again when the call was answered."""
    leases = fold.leases[call.plan_id, call.task_id]
    later = (lease for lease in leases if lease.attempt > attempt)
    return not any(lease.claimed.at <= call.answered_at for lease in later)


def operators(history: History, fold: Fold) -> Iterator[Violation]:
    """See `OPERATOR`: everything that the load asks is allowed when it asks it first."""
    retried = _written(history.facts)
    del fold
    for call in history.calls:
        if call.status != CONFLICT or call.verb in OWNED:
            continue
        at = retried.get(("plan.retried", call.plan_id, "", "", 0), call.answered_at + 1)
        if call.verb != "retry" or at > call.answered_at:
            yield _violation(OPERATOR, call, "nothing in the log forbids it")


def known(history: History, fold: Fold) -> Iterator[Violation]:
    """See `KNOWN`."""
    del fold
    since: dict[str, float] = {}
    for call in history.calls:
        if call.verb == "submit" and call.status in GOOD:
            since.setdefault(call.plan_id, call.answered_at)
    for call in history.calls:
        at = since.get(call.plan_id)
        if call.status == NOT_FOUND and (at is None or call.asked_at >= at):
            yield _violation(KNOWN, call, f"acknowledged at {at}")


def no_error(history: History, fold: Fold) -> Iterator[Violation]:
    """See `NO_ERROR`."""
    del fold
    for call in history.calls:
        refused = call.status >= 400
        if call.status not in EXPECTED or (refused and not call.is_problem):
            yield _violation(NO_ERROR, call, "")


def in_time(history: History, fold: Fold) -> Iterator[Violation]:
    """See `IN_TIME`; an instance that the test has stopped or frozen is not expected to answer."""
    del fold
    for call in history.calls:
        late_s = call.answered_at - call.asked_at - call.limit_s - MARGIN_S
        late = late_s > 0 and late_s > history.slack_s(call.asked_at, call.answered_at)
        if (late or call.status == NO_ANSWER) and not _could_not(history, call):
            yield _violation(IN_TIME, call, f"after {call.answered_at - call.asked_at:.1f} s")


def _could_not(history: History, call: Call) -> bool:
    return any(
        outage.since <= call.answered_at
        and (outage.until is None or call.asked_at <= outage.until + MARGIN_S)
        for outage in history.outages_of(call.instance)
    )


def _violation(sentence: str, call: Call, why: str) -> Violation:
    whose = f" by {call.owner}/{call.attempt}" if call.owner else ""
    what = f"{call.verb} of {call.plan_id}/{call.task_id}{whose} on instance {call.instance}"
    answer = f"{call.status} {call.code} {call.said} {call.sequence or ''} {call.detail}"
    return Violation(sentence, f"{what}: {' '.join(answer.split())}; {why}", call.asked_at)
