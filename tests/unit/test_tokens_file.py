"""The tokens file: what it holds, what is refused by its line, and how the command changes it."""

import hashlib
import stat
from pathlib import Path

import pytest

from service.cli.main import main
from service.principals.tokens_file import read_tokens
from service.settings.config import ConfigError
from tests.unit.tokens_world import PAST, give

SECRET = "correct-horse-battery-staple-0123456789abcde"  # noqa: S105 - made up
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()
OTHER = hashlib.sha256(b"another").hexdigest()


def table(**changed: str | None) -> str:
    """One token as TOML; None leaves a key out."""
    values = {
        "id": '"aaaaaaaa"', "sha256": f'"{DIGEST}"', "name": '"w1"', "roles": '["worker"]',
    } | changed  # fmt: skip
    return "[[token]]\n" + "".join(f"{key} = {value}\n" for key, value in values.items() if value)


def written(folder: Path, content: str, mode: int = 0o600) -> Path:
    path = folder / "tokens.toml"
    path.write_text(content)
    path.chmod(mode)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        read_tokens(path)
    said = str(refused.value)
    assert said.startswith(f"auth.tokens_file: {path}")
    assert SECRET not in said
    assert DIGEST not in said
    return said


def test_a_token_has_a_name_roles_kinds_and_an_end(tmp_path: Path) -> None:
    content = table(kinds='["a"]', expires="2030-01-01T00:00:00Z", roles='["work", "submit"]')
    principal = read_tokens(written(tmp_path, content))[0]["aaaaaaaa"]
    assert (principal.id, principal.name, principal.kinds) == ("aaaaaaaa", "w1", {"a"})
    assert principal.permissions == {"work", "submit"}
    assert principal.expires_at == 1893456000
    assert DIGEST not in repr(principal)


@pytest.mark.parametrize(
    ("role", "permissions"),
    [
        ("viewer", {"metrics", "read"}),
        ("worker", {"metrics", "read", "work"}),
        ("operator", {"metrics", "read", "work", "submit", "operate"}),
        ("metrics", {"metrics"}),
    ],
)
def test_the_role_names_stand_for_permissions(
    tmp_path: Path, role: str, permissions: set[str]
) -> None:
    principals, _ = read_tokens(written(tmp_path, table(roles=f'["{role}"]')))
    assert principals["aaaaaaaa"].permissions == permissions


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (table(sha256=f'"{DIGEST[:60]}"'), 3, "none cut off"),
        (table(sha256=f'"{hashlib.sha256(b"secret").hexdigest()}"'), 3, "weak"),
        (table(sha256=f'"{"0" * 64}"'), 3, "weak"),
        (table() + table(sha256=f'"{OTHER}"'), 7, "another token has the same id"),
        (table() + "# b\n" + table(id='"bbbbbbbb"'), 9, "the token of line 3 has this secret"),
        (table(secret=f'"{SECRET}"'), 6, "an unknown key"),
        (table(**{SECRET: "1"}), 6, "an unknown key"),
        (table(name='"a/b"'), 4, "name must be"),
        (table(name='"host:1:a"'), 4, "name must be"),
        (table(name=None), 1, "has no name"),
        (table(roles=f'["{SECRET}"]'), 5, "roles must be"),
        (table(roles="[]"), 5, "roles must be"),
        (table(kinds="[]"), 6, "kinds must be"),
        (table(expires=f'"{SECRET}"'), 6, "expires must be"),
        (table(expires="2030-01-01T00:00:00"), 6, "with its offset"),
        (table() + f'x = "{SECRET}', 6, "not valid TOML"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_line(
    tmp_path: Path, content: str, line: int, words: str
) -> None:
    said = refusal(written(tmp_path, content))
    assert f" line {line}: " in said
    assert words in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds no token"),
        ("token = []", "holds no token"),
        (f"[{SECRET}]\na = 1", "[[token]] tables only"),
        (f'token = [{{id = "{SECRET}"}}]', "begin each token with a line [[token]]"),
        ("#" * 1024 * 1024 + "#", "larger than"),
        ("a = " + "[" * 5_000, "not valid TOML"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: str, words: str) -> None:
    assert words in refusal(written(tmp_path, content))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_others_can_use_is_refused_with_the_command_that_helps(
    tmp_path: Path, mode: int
) -> None:
    path = written(tmp_path, table(), mode)
    assert f"mode {mode:04o}" in (said := refusal(path))
    assert said.endswith(f"run: chmod 600 {path}")


def test_the_first_format_is_refused_with_the_command_that_converts_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(
        tmp_path, f"# who may\nviewer grafana {SECRET}\n\noperator alice {SECRET}x # a\n"
    )
    assert refusal(path).endswith(f"run: holdfast token convert {path}")
    assert main(["token", "convert", str(path)]) == 0
    said = capsys.readouterr()
    shown = [line.split() for line in said.out.splitlines()]
    assert [(role, name) for role, name, _ in shown] == [
        ("viewer", "grafana"),
        ("operator", "alice"),
    ]
    assert SECRET not in said.out + said.err + path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in read_tokens(path)[0].values()] == ["grafana", "alice"]
    assert main(["token", "convert", str(path)]) == 2


@pytest.mark.parametrize(
    ("line", "words"), [("boss x y", "line 2"), ("viewer a/b cdefghij", "line 2: a name must be")]
)
def test_a_line_that_cannot_be_converted_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, words: str
) -> None:
    content = f"viewer grafana {SECRET}\n{line}\n"
    path = written(tmp_path, content)
    assert main(["token", "convert", str(path)]) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert SECRET not in said.err + said.out
    assert path.read_text() == content


# -- the command ------------------------------------------------------------------------------


def test_a_new_token_is_printed_once_and_only_its_digest_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tokens.toml"
    add = ["token", "add", "gpu-1", "--roles", "work,metrics", "--kinds", "a,b", "--expires", "9d"]
    assert main([*add, "--file", str(path)]) == 0
    said = capsys.readouterr()
    token = said.out.strip()
    prefix, token_id, secret = token.split("_", 2)
    assert prefix == "hf"
    assert token not in said.err
    assert secret not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    principal = read_tokens(path)[0][token_id]
    assert principal.digest == hashlib.sha256(secret.encode()).digest()
    assert (principal.name, principal.kinds) == ("gpu-1", {"a", "b"})
    assert main(["token", "list", "--file", str(path)]) == 0
    shown = capsys.readouterr().out
    assert secret not in shown
    assert principal.digest.hex() not in shown
    assert token_id in shown


def test_revoking_removes_one_token_and_keeps_what_else_stands_in_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tokens.toml"
    first, second = (give(path, name, "worker").split("_")[1] for name in ("a", "b"))
    path.write_text(path.read_text().replace('name = "b"', 'name = "b" # the second one'))
    assert main(["token", "revoke", first, "--file", str(path)]) == 0
    assert read_tokens(path)[0].keys() == {second}
    assert "# the second one" in path.read_text()
    assert main(["token", "revoke", first, "--file", str(path)]) == 2
    assert main(["token", "revoke", second, "--file", str(path)]) == 2
    assert "the last token" in capsys.readouterr().err


def test_a_file_that_cannot_be_used_is_not_changed_by_adding(tmp_path: Path) -> None:
    path = written(tmp_path, content := table(), 0o644)
    assert main(["token", "add", "x", "--roles", "read", "--file", str(path)]) == 2
    assert path.read_text() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "wrong",
    [
        ["x/y", "--roles", "read"],
        ["x", "--roles", "boss"],
        ["x", "--roles", "read", "--kinds", "a b"],
    ],
)
def test_a_token_that_cannot_be_is_not_made(tmp_path: Path, wrong: list[str]) -> None:
    path = tmp_path / "tokens.toml"
    assert main(["token", "add", *wrong, "--file", str(path)]) == 2
    assert not path.exists()
    soon = ["token", "add", "x", "--roles", "read", "--expires", "soon", "--file", str(path)]
    assert main(soon) == 2


def test_an_expired_token_is_listed_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tokens.toml"
    give(path, "old", "read", expires=PAST)
    main(["token", "list", "--file", str(path)])
    assert "2020-01-01T00:00:00Z (expired)" in capsys.readouterr().out
