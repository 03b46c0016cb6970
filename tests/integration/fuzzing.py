"""Requests made from the API's own document, and what is checked of their answers.

Imported when the fuzz begins: each process of a run would spend half a second on schemathesis.
"""

from typing import Any

import hypothesis
import schemathesis
from schemathesis import checks as core_checks
from schemathesis.checks import load_all_checks
from schemathesis.core import NOT_SET
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks as openapi_checks

load_all_checks()

Document = Any  # schemathesis is typed for its own plugin, which the tests do not load
Case = Any

CHECKS = [
    core_checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]
ANSWER_S = 20
DOCUMENT_S = 60  # it is made when it is asked for first


def document_at(url: str) -> Document:
    """The document that the instance at ``url`` serves."""
    return schemathesis.openapi.from_url(f"{url}/schema/openapi.json", timeout=DOCUMENT_S)


def operations_of(document: Document) -> set[str]:
    """Method and path of everything that the document describes."""
    return {result.ok().label for result in document.get_all_operations()}


def statuses_of(document: Document, label: str, mode: str, url: str, examples: int) -> set[int]:
    """Ask the operation so many times, with what fits or what does not; fails on a bad answer.

    Raises hypothesis.errors.Unsatisfiable where no such request can be made.
    """
    method, path = label.split()
    operation = document[path][method]

    @hypothesis.settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[
            hypothesis.HealthCheck.filter_too_much,
            hypothesis.HealthCheck.too_slow,
        ],
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=GenerationMode(mode)))
    def fuzz(case: Case) -> None:
        _without_waiting(case)
        if (
            case.body is NOT_SET or not case.body
        ):  # OpenAPI cannot ask for the type of a body that is left out
            case.headers = {**(case.headers or {}), "Content-Type": "application/json"}
        answer = case.call_and_validate(base_url=url, checks=CHECKS, timeout=ANSWER_S)
        seen.add(answer.status_code)

    seen: set[int] = set()
    fuzz()
    return seen


def _without_waiting(case: Case) -> None:
    """Waiting for what never comes is tested elsewhere; here it would only cost time."""
    for name in ("min_sequence", "at_sequence"):
        wanted = (case.query or {}).get(name)
        if isinstance(wanted, int) and wanted > 1:
            case.query[name] = 1
    if isinstance(case.body, dict) and isinstance(case.body.get("wait_s"), int | float):
        case.body["wait_s"] = min(case.body["wait_s"], 0)
