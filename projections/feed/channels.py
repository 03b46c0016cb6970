"""Clients that are up to date, by what they follow: an event costs only clients that want it.

All clients with the same interest share a channel, and with it the same bytes: what is left per
client is one write to its socket.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence

from projections.feed.client import Client, Gone, LastFact
from projections.feed.entry import FINISHED, FeedEntry, Interest
from projections.feed.limits import FeedLimits

LagsBehind = Callable[[Client], None]
OnFailed = Callable[[Client, str], None]
Sent = Callable[[Sequence[FeedEntry], int], None]


class Channel:
    """The up-to-date clients of one interest, and what is on its way to them."""

    def __init__(self, interest: Interest) -> None:
        self.interest = interest
        self.clients: dict[Client, None] = {}
        self.pending: list[FeedEntry] = []
        self.pending_bytes = 0
        self.last_fact: LastFact | None = (
            None  # the last about the plan itself, where that may end it
        )

    @property
    def over(self) -> bool:
        """Whether the plan that it follows has ended."""
        return self.last_fact is not None and self.last_fact.finished

    def take_pending(self) -> list[FeedEntry]:
        """What was on its way; nothing is any more."""
        entries, self.pending, self.pending_bytes = self.pending, [], 0
        return entries


class Channels:
    """All channels of a feed.

    ``lags`` is called for a client that left its channel because it does not keep up, ``failed``
    for one that cannot be written to any more, ``sent`` with events and the number of clients
    that they went to.
    """

    def __init__(self, lags: LagsBehind, failed: OnFailed, sent: Sent, limits: FeedLimits) -> None:
        self._limits = limits
        self.dirty = asyncio.Event()
        self._lags = lags
        self._failed = failed
        self._sent = sent
        self._by_plan: dict[str | None, dict[Interest, Channel]] = {}
        self._waiting: dict[Channel, None] = {}
        self._in_slice = 0

    def join(self, client: Client) -> None:
        """Let ``client`` have everything that is offered from now on."""
        of_plan = self._by_plan.setdefault(client.interest.plan_id, {})
        channel = of_plan.get(client.interest)
        if channel is None:
            channel = of_plan[client.interest] = Channel(client.interest)
        channel.clients[client] = None

    def part(self, client: Client) -> None:
        """Take ``client`` out of its channel, if it is in one."""
        of_plan = self._by_plan.get(client.interest.plan_id)
        channel = of_plan.get(client.interest) if of_plan else None
        if of_plan is None or channel is None:
            return
        channel.clients.pop(client, None)
        if not channel.clients:
            del of_plan[client.interest]
            if not of_plan:
                del self._by_plan[client.interest.plan_id]

    def offer(self, entries: Sequence[FeedEntry]) -> None:
        """Put events, in order, on their way to the clients that want them."""
        if not self._by_plan:
            return
        for entry in entries:
            for plan_id in (entry.plan_id, None):
                if of_plan := self._by_plan.get(plan_id):
                    for channel in list(of_plan.values()):
                        self._put(channel, entry)
        if self._waiting:
            self.dirty.set()

    def _put(self, channel: Channel, entry: FeedEntry) -> None:
        interest = channel.interest
        if interest.ends and entry.task_id is None:
            channel.last_fact = LastFact(entry.sequence, entry.type == FINISHED)
            self._waiting[channel] = None
        if interest.wants(entry):
            channel.pending.append(entry)
            channel.pending_bytes += entry.weight
            self._waiting[channel] = None
            most = self._limits
            if (
                len(channel.pending) > most.pending_events
                or channel.pending_bytes > most.pending_bytes
            ):
                channel.take_pending()
                for client in list(channel.clients):
                    self._fall_behind(client, channel)

    async def fan_out(self) -> None:
        """Write what is on its way; new events meanwhile wait for the next call."""
        self.dirty.clear()
        waiting, self._waiting = self._waiting, {}
        for channel in waiting:
            for run in runs(channel.take_pending(), self._limits.run_bytes):
                await self._write(channel, run)
            # A plan that is retried meanwhile goes on; what came meanwhile has its own round.
            if channel.over and not channel.pending:
                self._end(channel)

    async def _write(self, channel: Channel, run: Sequence[FeedEntry]) -> None:
        data = b"".join([entry.text() for entry in run])
        first, last = run[0].sequence, run[-1].sequence
        reached = 0
        for client in list(channel.clients):
            if client in channel.clients and client.cursor < last:
                reached += 1
                self._write_one(client, channel, run, data if client.cursor < first else None)
            self._in_slice += 1
            if self._in_slice >= self._limits.fan_out_slice:
                self._in_slice = 0
                await asyncio.sleep(0)
        self._sent(run, reached)

    def _write_one(
        self, client: Client, channel: Channel, run: Sequence[FeedEntry], data: bytes | None
    ) -> None:
        last = run[-1].sequence
        try:
            if data is not None:
                keeps_up = client.write_shared(data, last)
            else:  # it joined between two of these events
                rest = [entry.text() for entry in run if entry.sequence > client.cursor]
                keeps_up = client.write(rest, last)
        except Gone:
            self._failed(client, "disconnected")
        else:
            if not keeps_up:
                self._fall_behind(client, channel)

    def _fall_behind(self, client: Client, channel: Channel) -> None:
        if channel.last_fact is not None:
            client.note(channel.last_fact)
        self.part(client)
        self._lags(client)

    def _end(self, channel: Channel) -> None:
        for client in list(channel.clients):
            client.end("plan_finished")
            self.part(client)


def runs(entries: Sequence[FeedEntry], run_bytes: int) -> Iterator[Sequence[FeedEntry]]:
    """The same events in parts of about ``run_bytes``."""
    start = size = 0
    for place, entry in enumerate(entries, 1):
        size += len(entry.text())
        if size >= run_bytes or place == len(entries):
            yield entries[start:place]
            start, size = place, 0
