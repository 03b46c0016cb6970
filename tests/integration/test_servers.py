"""The tests' own servers do what the fault tests ask of them."""

from collections.abc import Callable

import nats
import pytest

from service.runtime.nats_server.process import jetstream_answers
from tests.conftest import PrivateServer


async def test_the_sessions_server_answers(nats_url: str) -> None:
    client = await nats.connect(nats_url)
    await client.jetstream().account_info()
    await client.close()


async def test_a_killed_server_keeps_its_facts(private_nats: PrivateServer) -> None:
    client = await nats.connect(private_nats.url)
    await client.jetstream().add_stream(name="T", subjects=["t"])
    await client.jetstream().publish("t", b"fact")
    await client.close()
    url = private_nats.url
    private_nats.kill()
    assert not jetstream_answers("127.0.0.1", private_nats.port)
    private_nats.restart()
    assert private_nats.url == url
    client = await nats.connect(url)
    assert (await client.jetstream().get_msg("T", 1)).data == b"fact"
    await client.close()


def test_a_paused_server_does_not_answer(private_nats: PrivateServer) -> None:
    private_nats.pause()
    assert not jetstream_answers("127.0.0.1", private_nats.port, 0.05)
    private_nats.resume()
    assert jetstream_answers("127.0.0.1", private_nats.port)


@pytest.mark.parametrize("count", [3])
def test_private_servers_are_apart(start_nats: Callable[[], PrivateServer], count: int) -> None:
    assert len({start_nats().url for _ in range(count)}) == count
