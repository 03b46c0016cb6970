"""One client cannot take the instance from the others: rates, streams and waiting claims."""

from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from service.http.problems import RequestRefused, explained
from service.http.quotas import BURST_S, Quotas, Rate, client_of
from service.settings.config import HttpSettings, Settings
from tests.unit.http_world import HOST, FakeCore


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_rate_allows_a_burst_then_its_amount_per_second() -> None:
    clock = Clock()
    rate = Rate(10, clock)
    granted = 0
    while not (wait_s := rate.spend("a", 1)):
        granted += 1
    assert granted == pytest.approx(10 * BURST_S, abs=2)
    assert 0 < wait_s <= 0.2
    assert rate.spend("b", 1) == 0  # another client notices nothing
    clock.now += wait_s
    assert rate.spend("a", 1) == 0
    assert rate.spend("a", 1) > 0


def test_many_clients_are_remembered_within_a_bound() -> None:
    rate = Rate(1, Clock())
    for n in range(25_000):
        assert rate.spend(str(n), 1) == 0


def test_a_client_is_refused_with_the_number_and_when_to_ask_again() -> None:
    quotas = Quotas(HttpSettings(writes_per_s=1, bytes_per_s=1_000, max_streams_per_client=1))
    for _ in range(int(BURST_S)):
        quotas.admit_write("a", 0)
    quotas.admit_write("a", 0)
    with pytest.raises(RequestRefused, match="more than 1 requests per second") as refused:
        quotas.admit_write("a", 0)
    told = explained(refused.value)
    assert told.problem.status == 429
    assert int(told.headers["Retry-After"]) >= 1
    quotas.admit_write("b", 1_000_000)
    with pytest.raises(RequestRefused, match="more than 1,000 bytes per second"):
        quotas.admit_write("b", 1)


def test_streams_are_held_and_given_back() -> None:
    quotas = Quotas(HttpSettings(max_streams_per_client=1))
    with quotas.one_of("event streams", "a"):
        with quotas.one_of("event streams", "b"), quotas.one_of("waiting claims", "a"):
            pass
        with (
            pytest.raises(RequestRefused, match="1 event streams"),
            quotas.one_of("event streams", "a"),
        ):
            pass
    with quotas.one_of("event streams", "a"):
        pass


def test_a_client_is_its_principal_before_its_address() -> None:
    class Holder:
        name = "alice"

    scope: dict[str, Any] = {"auth": Holder, "client": ("10.0.0.1", 5)}
    assert client_of(scope) == "principal alice"
    assert client_of(scope | {"auth": None}) == "10.0.0.1"
    assert client_of(scope | {"auth": None, "client": ("127.0.0.1", 5)}) is None


async def test_clients_at_loopback_are_not_told_apart_and_not_counted() -> None:
    core = FakeCore([], Settings(http=HttpSettings(allowed_hosts=(HOST,), writes_per_s=0.1)))
    async with AsyncTestClient(core.app()) as client:
        answers = [await client.post("/v1/claims", json={"owner": "w1"}) for _ in range(5)]
    assert {each.status_code for each in answers} == {200}
