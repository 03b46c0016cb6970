"""Finds out what became of drafts, one by one: sends each again until its outcome is known.

A message whose outcome is unknown is sent alone, with the same id, until the log has answered
*duplicate*, or has refused it and shown which message stands there instead.
"""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from typing import assert_never

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from streams.jetstream.drafts import AppenderLimits, Drafts, Ticket
from streams.jetstream.refusals import (
    DUPLICATE_IN_BATCH,
    LOST,
    TOO_LARGE,
    WRONG_SEQUENCE_IN_FLIGHT,
    actual_sequence,
    is_full,
)
from streams.jetstream.transport import Found, Stored, Transport, Unknown, WriteRefused
from streams.log import LogFull, LogUnavailable, TooLarge

SETTLING = 16  # drafts of unknown outcome asked about at a time


class _UnsettledError(Exception):
    """The outcome is still unknown: ask again."""


class UnknownOutcomes:
    """The drafts of one appender whose outcome has to be found out."""

    def __init__(self, transport: Transport, drafts: Drafts, limits: AppenderLimits) -> None:
        self._transport = transport
        self._drafts = drafts
        self._limits = limits
        self._settling = asyncio.Semaphore(SETTLING)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def settle(self, lot: Sequence[Ticket]) -> None:
        """Find out about each draft, in the background."""
        if not self._closed:
            for ticket in lot:
                self.run(self._settle(ticket))

    def run(self, work: Awaitable[None]) -> None:
        """Let ``work`` go on until `close`."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop; drafts keep the outcome that they have, or none."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _settle(self, ticket: Ticket) -> None:
        """Send one draft, alone and with its old ids, until its outcome is known or time is up."""
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(_UnsettledError),
                wait=wait_random_exponential(multiplier=0.02, max=0.5),
                stop=lambda _: self._left_s(ticket) <= 0,
                reraise=True,
            ):
                with attempt:
                    await self._try_alone(ticket)
        except _UnsettledError as error:
            self._drafts.fail(ticket, LogUnavailable(f"the log gave no answer: {error}"))
        except (LogUnavailable, LogFull, TooLarge) as error:
            self._drafts.fail(ticket, error)

    def _left_s(self, ticket: Ticket) -> float:
        return ticket.came_at + self._limits.budget_s - time.monotonic()

    async def _try_alone(self, ticket: Ticket) -> None:
        ticket.tries += 1
        await self._until_sendable(ticket)
        async with self._settling:
            if ticket.doubtful and await self._landed(ticket):
                return
            answer = await self._transport.publish(ticket.messages, self._try_s(ticket))
        match answer:
            case Stored(sequence):
                self._drafts.win_late(ticket, sequence)
            case WriteRefused(code, reason):
                await self._on_refusal(ticket, code, reason)
            case Unknown(reason):
                ticket.doubtful = True
                raise _UnsettledError(reason)
            case _:
                assert_never(answer)

    def _try_s(self, ticket: Ticket) -> float:
        # Twice as long each time: a log that is merely slow must not drown in repeated questions.
        return max(0.1, min(self._limits.try_s * 2 ** (ticket.tries - 1), self._left_s(ticket)))

    async def _until_sendable(self, ticket: Ticket) -> None:
        if self._transport.connected:
            return
        # What was never sent is known not to be written, so its caller need not wait long.
        grace_s = self._limits.grace_s - self._transport.down_s
        patience = self._left_s(ticket) if ticket.doubtful else grace_s
        if not await self._transport.until_connected(max(0.0, patience)):
            raise LogUnavailable("NATS is not connected")

    async def _on_refusal(self, ticket: Ticket, code: int, reason: str) -> None:
        if code == WRONG_SEQUENCE_IN_FLIGHT and ticket.doubtful:
            raise _UnsettledError(reason)  # the write in flight may be our own
        if code in LOST or code == DUPLICATE_IN_BATCH:
            await self._claim_or_lose(ticket, actual_sequence(reason))
            return
        if code == TOO_LARGE:
            raise TooLarge(reason)
        if is_full(code, reason):
            raise LogFull(f"the log is full: {reason}")
        raise _UnsettledError(f"{reason} ({code})")

    async def _claim_or_lose(self, ticket: Ticket, actual: int | None) -> None:
        """Say whether it was refused because another was first, or because an earlier try was."""
        if not ticket.doubtful:
            self._drafts.lose(ticket, actual)
            return
        found = await self._look_up(ticket)
        if found is None and (actual is None or actual > ticket.expected):
            # Refused for a message that is not there: a leader that is cut off was asked.
            raise _UnsettledError("the log refuses and shows no message that was first")
        if not self._is_own(ticket, found):
            self._drafts.lose(ticket, actual)

    async def _landed(self, ticket: Ticket) -> bool:
        """Answer the draft if an earlier attempt turns out to be stored; else False.

        Looking costs the log a fraction of what storing, or refusing, a batch does.
        """
        return self._is_own(ticket, await self._look_up(ticket))

    async def _look_up(self, ticket: Ticket) -> Found | None:
        """The first message above the expected sequence: where the draft stands if it is stored."""
        try:
            return await self._transport.first_after(
                ticket.subject, ticket.expected, self._try_s(ticket)
            )
        except LogUnavailable as error:
            raise _UnsettledError(str(error)) from error

    def _is_own(self, ticket: Ticket, found: Found | None) -> bool:
        """Answer the draft if ``found`` is its message; else False."""
        if found is None or found.event_id != ticket.event_id:
            return False
        self._drafts.win_late(ticket, found.sequence + len(ticket.messages) - 1)
        return True
