"""All questions asked of one body of evidence; pure, so every finding can be tested as a value."""

from collections.abc import Iterable

from projections.read_models.views import moment
from service.ops.doctor.evidence import Evidence
from service.ops.doctor.questions import (
    claiming,
    event_streams,
    internals,
    leases,
    load,
    security,
    stale_writers,
)
from service.ops.doctor.report import Examined, Report, SourceReport, reported

QUESTIONS = (
    claiming.examine,
    leases.examine,
    stale_writers.examine,
    load.examine,
    event_streams.examine,
    internals.examine,
    security.examine,
)


def diagnose(
    evidence: Evidence, *, beside: Iterable[Examined] = (), parts: Iterable[SourceReport] = ()
) -> Report:
    """What the evidence says; ``beside`` was examined elsewhere and joins the report."""
    return reported(
        [*beside, *(examine(evidence) for examine in QUESTIONS)],
        at=moment(evidence.at),
        instance=evidence.instance,
        window_s=evidence.window_s,
        parts=parts,
    )
