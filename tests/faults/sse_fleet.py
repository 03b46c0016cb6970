"""Clients of the event stream that wander: they break off, come back elsewhere, and lose nothing.

A `Wish` is what a client follows, judged from the witness's reading of the log; a `Wanderer` is a
client that follows wish after wish through every disturbance, and knows afterwards what it saw.
"""

import asyncio
import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise

import msgspec

from tests.faults.log_witness import Message
from tests.faults.sse_client import Connection, Manner, Story, StreamFault, ask, begun
from tests.faults.sse_load import TASK_IDS

PAUSE_S = (0.01, 0.3)  # instead of `retry`, which is seconds: more breaks in less time
ARRIVE_S = 30.0
STAY_S = 8.0  # after which a client moves, however little it received
MANNERS: tuple[Manner, ...] = ("close", "close", "reset", "half-close")
HEARTBEAT = "task.heartbeat"
TYPES = (
    "plan.submitted", "plan.finished", "task.claimed", "task.started", "task.heartbeat",
    "task.progress", "task.completed", "task.failed",
)  # fmt: skip


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What is followed; ``own`` marks a plan's own stream, which ends with the plan.

    ``first`` is the cursor that the client begins with, None for none.
    """

    plan_id: str | None = None
    task_id: str | None = None
    types: frozenset[str] | None = None
    own: bool = False
    first: int | None = None

    @property
    def path(self) -> str:
        asked = [f"plan_id={self.plan_id}"] if self.plan_id and not self.own else []
        asked += [f"task_id={self.task_id}"] if self.task_id else []
        asked += [f"types={','.join(sorted(self.types))}"] if self.types else []
        path = f"/v1/plans/{self.plan_id}/events" if self.own else "/v1/events"
        return f"{path}?{'&'.join(asked)}" if asked else path

    def wants(self, message: Message) -> bool:
        """Whether the contract says that this message is for this client."""
        return (
            self.plan_id in (None, message.plan_id)
            and self.task_id in (None, message.task_id)
            and (message.type in self.types if self.types else message.type != HEARTBEAT)
        )


class Journey:
    """One wish and what became of it."""

    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        self.story = Story(wish.first)
        self.over = False  # it was a plan's own stream, and the server says that it has ended
        self.heads: list[tuple[int, int]] = []
        """Of each `caught_up`: the head that its hello had named, and the events seen by then."""

    def start(self) -> int:
        """The sequence after which everything has to be seen."""
        if self.wish.first is not None:
            return self.wish.first
        if self.wish.own or not self.story.signals:
            return 0
        fresh = self.story.signals[0].id
        if fresh is None:
            raise StreamFault("who gives no cursor is given one in the hello")
        return fresh

    def due(self, log: Sequence[Message]) -> list[Message]:
        """What has to be seen, in order."""
        if not self.story.signals and self.wish.first is None and not self.wish.own:
            return []  # it never got as far as a hello
        start = self.start()
        begin = bisect_right(log, start, key=lambda each: each.sequence)
        return [each for each in log[begin:] if self.wish.wants(each)]

    def check(self, log: Sequence[Message]) -> int:
        """Raise StreamFault unless exactly what is due was seen; answers how many events it was."""
        self.story.check()
        due = [message.sequence for message in self.due(log)]
        seen = self.story.sequences
        if seen != due:
            raise StreamFault(f"{self.wish}: {difference(seen, due)}")
        types = {message.sequence: message.type for message in log}
        if self.story.names != [types[sequence] for sequence in seen]:
            raise StreamFault(f"{self.wish}: an event under another name")
        for head, count in self.heads:
            if bisect_right(due, head) > count:
                raise StreamFault(f"{self.wish}: caught_up at {count} events, head was {head}")
        if self.story.told("gap"):
            raise StreamFault(f"{self.wish}: a gap in a whole log")
        return len(seen)


def difference(seen: Sequence[int], due: Sequence[int]) -> str:
    """The first places where two runs of sequences part, in words."""
    repeated = [b for a, b in pairwise(seen) if b <= a]
    missing = sorted(set(due) - set(seen))
    unasked = sorted(set(seen) - set(due))
    return (
        f"{len(missing)} missing {missing[:5]}, {len(repeated)} repeated {repeated[:5]}, "
        f"{len(unasked)} unasked for {unasked[:5]} of {len(due)}"
    )


class Wanderer:
    """One client; ``urls`` says where the instances are, an empty one is away at the moment."""

    def __init__(
        self,
        luck: random.Random,
        urls: Callable[[], Sequence[str]],
        plans: Sequence[str],
        head: Callable[[], int],
    ) -> None:
        self.journeys: list[Journey] = []
        self.connects = self.refused = 0
        self.instances: set[str] = set()
        self.settled = False
        """Whether to stay where it is and break off no more."""
        self._luck = luck
        self._urls = urls
        self._plans = plans
        self._head = head
        self._connection: Connection | None = None

    async def wander(self) -> None:
        """Until cancelled."""
        while True:
            journey = Journey(self._wish())
            self.journeys.append(journey)
            while not journey.over:
                await self._stay(journey)
                journey.story.check()

    async def arrive(self) -> None:
        """Follow the last journey until the server says that all of the log has been sent."""
        journey = self.journeys[-1]
        journey.story.check()
        while not journey.over:
            connection = await self._connect(journey)
            if connection is not None:
                arrived = await connection.told_or_ended(connection.caught_up, ARRIVE_S)
                self._note(journey, connection)
                connection.hang_up("close")
                if arrived:
                    return
            await asyncio.sleep(0.05)

    @property
    def seen(self) -> int:
        """How many events the journey under way has brought."""
        return len(self.journeys[-1].story.sequences)

    def let_go(self) -> None:
        """Break off now."""
        if self._connection is not None:
            self._connection.hang_up("reset")

    # -- one connection ---------------------------------------------------------------------

    async def _stay(self, journey: Journey) -> None:
        connection = await self._connect(journey)
        if connection is None:
            await asyncio.sleep(self._luck.uniform(*PAUSE_S))
            return
        connection.events_left = self._luck.choice((1, 3, 20, 100, 500, 3000))
        connection.manner = self._luck.choice(MANNERS)
        try:
            while not connection.ended.is_set():
                try:
                    async with asyncio.timeout(self._luck.uniform(0.1, STAY_S)):
                        await connection.ended.wait()
                except TimeoutError:
                    self._disturb(connection)
        finally:
            self._note(journey, connection)
            connection.hang_up("reset")
        if not self.settled:
            await asyncio.sleep(self._luck.uniform(*PAUSE_S))

    def _disturb(self, connection: Connection) -> None:
        """Break off, or take nothing for a while."""
        if self.settled:
            connection.events_left = None
            return
        if self._luck.random() < 0.5:
            connection.hang_up(self._luck.choice(MANNERS))
            return
        transport = connection.transport
        if not transport.is_closing():
            transport.pause_reading()
            loop = asyncio.get_running_loop()
            loop.call_later(self._luck.uniform(0.05, 1), transport.resume_reading)

    async def _connect(self, journey: Journey) -> Connection | None:
        url = self._luck.choice(self._urls())
        if not url:
            return None
        story, by_header = journey.story, self._luck.random() < 0.7
        try:
            connection = await ask(
                url, journey.wish.path, story, cursor=story.cursor, header=by_header
            )
        except OSError:
            self.refused += 1
            return None
        self._connection = connection
        match await begun(connection):
            case 200:
                self.connects += 1
                self.instances.add(url)
                return connection
            case 204 if journey.wish.own:
                journey.over = True
            case 0 | 503:
                self.refused += 1
            case status:
                raise StreamFault(f"{journey.wish.path} was answered {status}: {connection.body}")
        connection.hang_up("reset")
        return None

    def _note(self, journey: Journey, connection: Connection) -> None:
        told = connection.caught_up_at
        if told is not None and connection.greeting is not None:
            journey.heads.append((connection.greeting.data["head"], told))

    # -- wishes -----------------------------------------------------------------------------

    def _wish(self) -> Wish:
        luck = self._luck
        plans = list(self._plans)
        plan_id = luck.choice(plans) if plans and luck.random() < 0.4 else None
        own = plan_id is not None and luck.random() < 0.6
        task_id = luck.choice(TASK_IDS) if luck.random() < 0.2 else None
        types = frozenset(luck.sample(TYPES, luck.randint(1, 4))) if luck.random() < 0.4 else None
        first = luck.choice((None, 0, luck.randint(0, self._head())))
        return Wish(plan_id=plan_id, task_id=task_id, types=types, own=own, first=first)
