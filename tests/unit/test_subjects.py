"""A name that reaches a subject can be nothing but a name: no dot, no blank, no wildcard."""

import pytest

from streams.subjects import audit_subject, is_id, split_subject, subject_of

BAD_IDS = ["", ".", "a.b", "a b", "*", ">", "a\r\nPUB x 1", "é", "x" * 65, "~x"]


@pytest.mark.parametrize("bad", BAD_IDS)
def test_what_cannot_be_an_id_comes_into_no_subject(bad: str) -> None:
    assert not is_id(bad)
    for ask in (
        lambda: subject_of(bad),
        lambda: subject_of("p", bad),
        lambda: audit_subject("x", bad, None),
        lambda: audit_subject("x", "p", bad),
        lambda: audit_subject(bad, "p", "t"),
    ):
        with pytest.raises(ValueError, match="no"):
            ask()


def test_a_subject_says_whose_it_is() -> None:
    assert split_subject(subject_of("p")) == ("p", None)
    assert split_subject(subject_of("p", "t-1_x")) == ("p", "t-1_x")
    assert audit_subject("log_recovered", None, None) == "audit.log_recovered.~.~"
    assert audit_subject("task_poisoned", "p", "t") == "audit.task_poisoned.p.t"


@pytest.mark.parametrize("subject", ["plans", "plans.", "plans.p.t.u", "audit.x.p.t", "plans.p t"])
def test_a_foreign_subject_names_no_plan(subject: str) -> None:
    assert split_subject(subject) is None
