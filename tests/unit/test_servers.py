"""What a list of NATS URLs means, and that no password in it is ever printed."""

import pytest

from streams.jetstream.servers import Servers, is_too_old, servers_of, without_password


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("nats://h:4222", Servers(("nats://h:4222",))),
        ("tls://h", Servers(("tls://h",))),
        ("nats://a:1, nats://[::1]:2", Servers(("nats://a:1", "nats://[::1]:2"))),
        ("nats://u:secret@h:1", Servers(("nats://h:1",), "u", "secret")),
        ("nats://u%40x:p%3Ab%2Fc%2C%23%25@h:1", Servers(("nats://h:1",), "u@x", "p:b/c,#%")),
        ("nats://to%2Cken@h:1", Servers(("nats://h:1",), None, None, "to,ken")),
        ("nats://u:p@a:1,nats://u:p@b:1", Servers(("nats://a:1", "nats://b:1"), "u", "p")),
        ("nats://u:p@a:1,nats://b:1", Servers(("nats://a:1", "nats://b:1"), "u", "p")),
    ],
)  # fmt: skip
def test_servers_and_credentials(url: str, servers: Servers) -> None:
    assert servers_of(url) == servers


@pytest.mark.parametrize(
    "url",
    [
        "nats://u:se,cret@127.0.0.1:4222",
        "nats://u:secret@",
        "nats://u:secret",
        "natz://u:secret@h:1",
        "u:secret@127.0.0.1:4222",
        "nats://secrettoken@127.0.0.1:0",
        "nats://u:sec/ret@h:4222",
        "nats://u:sec#ret@h:4222",
        "nats://h1:4222, nats://u:secret@h2:bad",
        "nats://u:sec@ret@127.0.0.1:4x",
        "nats://u:secret@h:1,nats://v:secret@h:1",
        "ws://u:secret@h:1",
        "wss://h:443",
        "nats://h:99999",
        "",
    ],
)
def test_a_list_that_cannot_be_used_is_refused_and_shows_no_password(url: str) -> None:
    with pytest.raises(ValueError, match="must") as refusal:
        servers_of(url)
    for text in (str(refusal.value), without_password(url)):
        assert not any(part in text for part in ("sec", "cret", "ret@"))


def test_what_may_be_printed_of_a_list() -> None:
    shown = without_password("nats://a:1,tls://u:p@b:2,nats://[::1]:3")
    assert shown == "nats://a:1,tls://***@b:2,nats://[::1]:3"


@pytest.mark.parametrize(
    ("version", "too_old"),
    [("2.10.29", True), ("2.11.0", True), ("2.12.0", False), ("2.15.1", False), ("3.0.0", False)],
)
def test_servers_without_atomic_batches_are_too_old(version: str, too_old: bool) -> None:  # noqa: FBT001
    assert is_too_old(version) is too_old
