"""A test that lacks a program is skipped at home and fails in CI."""

import pytest

from tests.programs import program


def test_a_program_is_found_by_its_path() -> None:
    assert program("sh").endswith("/sh")


def test_without_it_a_test_is_skipped_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install nowhere-to-be-found"):
        program("nowhere-to-be-found")


def test_in_ci_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install nowhere-to-be-found"):
        program("nowhere-to-be-found")
