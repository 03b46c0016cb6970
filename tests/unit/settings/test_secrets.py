"""What may be a secret is never printed."""

from pathlib import Path

import pytest

from service.settings.keys import described
from tests.unit.settings.sources import load, refusal


@pytest.mark.parametrize(
    "url", ["me:secret@a:4222", "secret@a:4222", "nats:/me:secret@a:1", "nats:me:secret@a:1"]
)
def test_a_url_without_a_scheme_is_refused_without_its_password(url: str) -> None:
    said = refusal(NATS_URL=url)
    assert "nats.url" in said
    assert "secret" not in said


def test_passwords_are_not_shown() -> None:
    loaded = load(NATS_URL="nats://me:secret@a:4222,nats://me:secret@b:4222")
    shown = {setting.key: setting.value for setting in described(loaded)}
    assert shown["nats.url"] == "nats://***@a:4222,nats://***@b:4222"
    assert "secret" not in refusal(NATS_URL="nats://me:secret@host:port")
    assert "secret" not in refusal(HOLDFAST_NATS__URLS="nats://me:secret/@x@host:1")


# -- tables, and what is never printed --------------------------------------------------------

PRECIOUS = "sk-live-0123456789"


@pytest.mark.parametrize(
    ("toml", "key"),
    [
        (f'[http]\npasswort = "{PRECIOUS}"', "http.passwort"),
        (f'[secrets]\nopenai = "{PRECIOUS}"', "secrets"),
        (f'[secrets.openai]\nvalue = "{PRECIOUS}"\nfor = ["https://h"]', "secrets"),
        (
            f'[executor.chat.endpoints.a]\nbase_url = "https://h"\napi_key = "{PRECIOUS}"',
            "endpoints",
        ),
        (f'[observability]\notlp_endpoint = "ftp://h/?key={PRECIOUS}"', "otlp_endpoint"),
        (f'[observability]\notlp_endpoint = "ftp://u:{PRECIOUS}@h/"', "otlp_endpoint"),
        (f'[nats]\nurl = "nats://h:{PRECIOUS}"', "nats.url"),
    ],
)
def test_a_refusal_never_prints_what_may_be_a_secret(tmp_path: Path, toml: str, key: str) -> None:
    said = refusal(toml, tmp_path)
    assert key in said
    assert PRECIOUS not in said


def test_an_unknown_variable_is_named_without_its_value() -> None:
    said = refusal(HOLDFAST_OPENAI_API_KEY=PRECIOUS)
    assert "openai_api_key" in said
    assert PRECIOUS not in said


def test_what_is_printed_has_no_password_and_no_query_string(tmp_path: Path) -> None:
    toml = f"""
        [observability]
        otlp_endpoint = "https://user:{PRECIOUS}@h/v1?key={PRECIOUS}"
        [executor.chat.endpoints.a]
        base_url = "https://user:{PRECIOUS}@h/v1"
    """
    shown = [str(each.value) for each in described(load(toml, tmp_path))]
    assert PRECIOUS not in "".join(shown)
    assert "https://***@h/v1?***" in shown
