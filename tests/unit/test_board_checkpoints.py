"""Checkpoints on the board: their values stay in memory up to a bound, the oldest leave first."""

from msgspec import Raw

from streams.plan import commands
from streams.plan.decisions import Accept
from tests.unit.board_story import Yard
from tests.unit.plan_story import task

VALUE = Raw(b'"' + b"x" * 98 + b'"')


def held(place: Yard) -> dict[str, bool]:
    kept = place.plan("p").tasks["a"].checkpoints or {}
    return {key: each.held is not None for key, each in kept.items()}


def test_values_beyond_the_bound_leave_memory_and_their_keys_stay() -> None:
    place = Yard(output_bytes=250)
    place.submit("p", task("a"))
    (pick,) = place.claim(1)
    for key in ("k1", "k2", "k3"):
        said = place.own(commands.Checkpoint, pick, key=key, value=VALUE)
        assert isinstance(said, Accept)
        assert place.board.outputs.bytes <= 250
    assert held(place) == {"k1": False, "k2": True, "k3": True}
    place.complete(pick)
    assert place.board.outputs.bytes == 0
    assert place.plan("p").tasks["a"].checkpoints is None


def test_replaced_values_are_not_counted_twice() -> None:
    place = Yard(output_bytes=10_000)
    place.submit("p", task("a"))
    (pick,) = place.claim(1)
    for n in range(50):
        place.own(commands.Checkpoint, pick, key="k", value=Raw(b'"%d"' % n))
    assert place.board.outputs.bytes == len(b'"49"')
