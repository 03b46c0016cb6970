"""The last hour shows each minute with what ran, waited and ended in it."""

from projections.listeners import Batch
from service.ops.last_hour import Minutes
from streams.log import Fact
from streams.plan import commands
from tests.unit.board_story import Yard
from tests.unit.plan_story import task


def hear(minutes: Minutes, yard: Yard, heard: int) -> int:
    """Let ``minutes`` hear all facts after the first ``heard`` as one batch, as a fold does."""
    facts = yard.log[heard:]
    counted = [fact for fact in facts if isinstance(fact, Fact)]
    minutes.folded(Batch(facts, counted, yard.board.sequence))
    return len(yard.log)


def test_a_minute_in_which_leases_were_only_renewed_shows_what_ran() -> None:
    yard = Yard()
    minutes = Minutes(yard.board)
    yard.submit("p", task("a"), task("b"), task("c"))
    heard = hear(minutes, yard, 0)
    first, second = yard.claim(2)
    heard = hear(minutes, yard, heard)
    yard.later(60)
    yard.own(commands.Heartbeat, first)
    heard = hear(minutes, yard, heard)
    yard.later(60)
    yard.own(commands.Complete, second)
    hear(minutes, yard, heard)

    shown = minutes.shown(yard.at + 60)
    assert [(each.running, each.waiting, each.completed) for each in shown.minutes] == [
        (2, 3, 0),
        (2, 1, 0),
        (1, 1, 1),
        (1, 1, 0),
    ]
