"""A report as a person reads it in a terminal: what is wrong first, then every answer in a line."""

import textwrap
from collections.abc import Iterable, Iterator
from typing import Any, cast

from service.ops.doctor.report import Finding, Report

WIDTH = 100
INDENT = " " * 10
MOST_ITEMS = 5
_MARKS = {"healthy": "ok", "warning": "WARNING", "critical": "CRITICAL", "unknown": "UNKNOWN"}


def lines(report: Report, width: int = WIDTH) -> Iterator[str]:
    """The whole report, its sentences in lines of at most so many characters."""
    who = f" of {report.instance}" if report.instance else ""
    window = f", rates over {report.window_s:.0f} s" if report.window_s else ""
    yield f"{report.status.upper()}{who} at {report.at:%Y-%m-%d %H:%M:%S} UTC{window}"
    for finding in report.findings:
        yield ""
        yield from of_finding(finding, width)
    yield ""
    for answer in report.answers:
        yield from _wrapped(_MARKS[answer.status], f"{answer.asked} {answer.says}", width)
    trouble = [part for part in report.parts if part.state in ("failed", "hung", "skipped")]
    if trouble:
        yield ""
    for part in trouble:
        yield f"{part.name}: {part.state} after {part.took_s:.1f} s: {part.detail}"


def of_finding(finding: Finding, width: int = WIDTH) -> Iterator[str]:
    """One finding: what, how one knows, what it means, what to run."""
    yield from _wrapped(_MARKS[finding.severity], f"{finding.code}: {finding.summary}", width)
    for text in _evidence(finding.evidence):
        yield from _wrapped("", text, width)
    yield from _wrapped("means", finding.meaning, width)
    yield f"{'run':<{len(INDENT)}}{finding.command}"  # in one line: it is to be pasted
    if finding.runbook:
        yield f"{'see':<{len(INDENT)}}{finding.runbook}"


def _wrapped(label: str, text: str, width: int) -> Iterable[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=f"{label:<{len(INDENT)}}",
        subsequent_indent=INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _evidence(evidence: dict[str, Any]) -> Iterator[str]:
    """Numbers in one line, then each item of a list in one of its own."""
    plain = {key: value for key, value in evidence.items() if not isinstance(value, list | dict)}
    if plain:
        yield _pairs(plain)
    for key, value in evidence.items():
        if isinstance(value, dict) and value:
            yield f"{key}: {_pairs(cast('dict[str, Any]', value))}"
        elif isinstance(value, list) and value:
            items = cast("list[Any]", value)
            for item in items[:MOST_ITEMS]:
                yield f"{key}: {_value(item).strip('()')}"
            if len(items) > MOST_ITEMS:
                yield f"{key}: and {len(items) - MOST_ITEMS} more (--json has them)"


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {_value(value)}" for key, value in values.items() if value is not None)


def _value(value: object) -> str:
    if isinstance(value, dict):
        return f"({_pairs(cast('dict[str, Any]', value))})"
    return f"{value:g}" if isinstance(value, float) else str(value)
