"""What pytest reports of a test: a report always, whatever the failure's text or traceback does.

An error in a hook ends a whole run. Python 3.11.7 raises SystemError out of `ast.parse`, which
pytest reads sources with, when another thread formats a traceback at that moment, or a finaliser
does (CPython gh-106905); a time-out may end inside the report; an exception may have no text.
"""

import traceback
from collections import deque
from collections.abc import Generator

import pytest
from _pytest.runner import CallInfo

FRAMES = 40


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Every failure is reported, in text that passes between the processes of a run."""
    try:
        report = yield
        text = report.longreprtext if report.failed else ""
    except (Exception, pytest.fail.Exception) as trouble:  # noqa: BLE001 - whatever it is
        report, text = _plain_report(item, call, trouble), ""
    if _passing(text) != text:
        report.longrepr = _passing(text)
    report.sections = [(name, _passing(said)) for name, said in report.sections]
    return report


def _passing(text: str) -> str:
    """The text without halves of surrogate pairs, which no process can send."""
    return text.encode(errors="backslashreplace").decode()


def _plain_report(
    item: pytest.Item, call: CallInfo[None], trouble: BaseException
) -> pytest.TestReport:
    assert call.when != "collect"
    failures = [call.excinfo.value] if call.excinfo is not None else []
    said = [_told(each) for each in failures]
    said += ["", "This report is short, because pytest could not make its own:", _told(trouble)]
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords=dict.fromkeys(item.keywords, 1),
        outcome="failed",
        longrepr=_passing("\n".join(said)),
        when=call.when,
        sections=[(f"Captured {name} {when}", text) for when, name, text in item._report_sections],  # noqa: SLF001
        duration=call.duration,
        start=call.start,
        stop=call.stop,
        user_properties=item.user_properties,
    )


def _told(error: BaseException) -> str:
    """Where it was raised, the last call at the end, and its text; no sources are read."""
    frames = deque(traceback.walk_tb(error.__traceback__), FRAMES)
    lines = [
        f"{frame.f_code.co_filename}:{line}: in {frame.f_code.co_qualname}"
        for frame, line in frames
    ]
    try:
        text = str(error)
    except (Exception, pytest.fail.Exception) as no_text:  # noqa: BLE001 - it is reported
        text = f"its text raises {type(no_text).__name__}"
    return "\n".join([*lines, f"{type(error).__name__}: {text}"])
