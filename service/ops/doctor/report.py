"""What a doctor says: findings, an answer to every question, and what was looked at.

The shape is the contract of ``GET /v1/ops/doctor`` and of ``holdfast doctor --json``.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec.structs import force_setattr, replace

from projections.read_models.views import Moment

Severity = Literal["unknown", "warning", "critical"]
AnswerStatus = Literal["healthy", "unknown", "warning", "critical"]
Question = Literal[
    "claiming", "leases", "stale_writers", "load", "event_streams", "internals", "reach", "security"
]

EXIT_CODES: dict[AnswerStatus, int] = {"healthy": 0, "warning": 1, "critical": 2, "unknown": 3}
_ORDER: tuple[AnswerStatus, ...] = ("healthy", "unknown", "warning", "critical")
RUNBOOK = "service/ops/RUNBOOK.md"

ASKED: dict[Question, str] = {
    "reach": "Can the service be reached?",
    "claiming": "Is claiming congested, or spinning idle?",
    "leases": "Are leases at risk?",
    "stale_writers": "Are old executors writing back?",
    "load": "Shed load or scale out?",
    "event_streams": "Is SSE whole?",
    "internals": "Do threads, loops and daemons work?",
    "security": "Is anything open to others?",
}
"""Every question that an operator asks, in the order in which they are answered."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong.

    ``code`` is the name of the alert about the same trouble where there is one (then ``alert``
    repeats it); ``evidence`` holds numbers, owners, attempts and log sequences; ``command`` can
    be pasted into a shell; ``runbook`` is a file and its anchor.
    """

    code: str
    question: Question
    severity: Severity
    summary: str
    evidence: dict[str, Any]
    meaning: str
    command: str
    alert: str | None = None
    runbook: str | None = None

    def __post_init__(self) -> None:
        if self.alert is not None and self.runbook is None:
            force_setattr(self, "runbook", anchor(self.alert))


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one question, also when all is well: a line to read and its numbers."""

    question: Question
    asked: str
    status: AnswerStatus
    says: str
    numbers: dict[str, Any]


class SourceReport(msgspec.Struct, frozen=True, kw_only=True):
    """One source that was looked at: whether it answered, failed, or hung, and for how long."""

    name: str
    state: Literal["answered", "failed", "hung", "skipped"]
    took_s: float
    detail: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was found; ``window_s`` is how far back rates look (null: no rates)."""

    status: AnswerStatus
    exit_code: int
    at: Moment
    instance: str
    window_s: float | None
    findings: list[Finding]
    answers: list[Answer]
    parts: list[SourceReport]


class Examined(msgspec.Struct, frozen=True):
    """One question, answered."""

    answer: Answer
    findings: list[Finding]


def answered(
    question: Question,
    says: str,
    numbers: dict[str, Any],
    findings: Iterable[Finding | None],
    *,
    known: bool = True,
) -> Examined:
    """The answer is as bad as its worst finding; one that could not be looked at is unknown.

    None stands for a check that found nothing.
    """
    found = [finding for finding in findings if finding is not None]
    own: AnswerStatus = "healthy" if known else "unknown"
    status = worst([own, *(finding.severity for finding in found)])
    answer = Answer(
        question=question, asked=ASKED[question], status=status, says=says, numbers=numbers
    )
    return Examined(answer, found)


def cannot_tell(question: Question, why: str) -> Examined:
    """A question whose evidence could not be gathered."""
    return answered(question, f"cannot tell: {why}", {}, [], known=False)


def worst(statuses: Iterable[AnswerStatus]) -> AnswerStatus:
    """The worst of them; what is known to be wrong outweighs what is not known."""
    worst_yet: AnswerStatus = "healthy"
    for status in statuses:
        if _ORDER.index(status) > _ORDER.index(worst_yet):
            worst_yet = status
    return worst_yet


def reported(
    examined: Iterable[Examined],
    *,
    at: datetime,
    instance: str,
    window_s: float | None,
    parts: Iterable[SourceReport] = (),
) -> Report:
    """The questions' answers as one report, the worst findings first."""
    blank = Report(
        status="healthy",
        exit_code=0,
        at=at,
        instance=instance,
        window_s=window_s,
        findings=[],
        answers=[],
        parts=[],
    )
    return joined(blank, examined, parts)


def joined(report: Report, told: Iterable[Examined], parts: Iterable[SourceReport]) -> Report:
    """The report with what was examined besides; two answers to one question become one."""
    told = list(told)
    answers = {answer.question: answer for answer in report.answers}
    for answer in (each.answer for each in told):
        known = answers.get(answer.question)
        answers[answer.question] = answer if known is None else _both(known, answer)
    findings = [*report.findings, *(finding for each in told for finding in each.findings)]
    status = worst(answer.status for answer in answers.values())
    return replace(
        report,
        status=status,
        exit_code=EXIT_CODES[status],
        findings=sorted(findings, key=lambda each: -_ORDER.index(each.severity)),
        answers=sorted(answers.values(), key=lambda each: list(ASKED).index(each.question)),
        parts=[*report.parts, *parts],
    )


def _both(one: Answer, other: Answer) -> Answer:
    return replace(
        one,
        status=worst([one.status, other.status]),
        says=f"{one.says}; {other.says}",
        numbers={**one.numbers, **other.numbers},
    )


def with_runbook_at(url: str, report: Report) -> Report:
    """The report whose findings name the runbook by ``url``; by its file if that is empty."""
    if not url:
        return report
    findings = [
        replace(each, runbook=each.runbook and each.runbook.replace(RUNBOOK, url, 1))
        for each in report.findings
    ]
    return replace(report, findings=findings)


def anchor(alert: str) -> str:
    """The section of the runbook about an alert."""
    return f"{RUNBOOK}#{alert.lower()}"
