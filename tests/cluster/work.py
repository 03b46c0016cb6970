"""The load: plans, and workers that die, freeze, move between instances and speak too late.

Every write is repeated on another instance until it is answered or its lease is lost. What is right
and what is wrong is not judged here: the checker does that from the recorded calls and the log.
"""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

import httpx
import msgspec

from tests.cluster.caller import Caller
from tests.cluster.hang_up import Asker
from tests.cluster.ports import NUMBERS
from tests.cluster.record import NO_ANSWER, Call, Json

LEASE_S = 8.0
RETRY_PAUSE_S = 0.2
AMPLE = {"max_retries": 1_000, "max_lost_leases": 1_000, "lease_s": LEASE_S}
HANG_UP_OWNER = "gone-"
PLAN_SECRET = "secret-of-a-plan-0123456789"  # noqa: S105 - it must never stand in any output

Step = Callable[[int], Coroutine[Any, Any, Call]]


class Pace(msgspec.Struct, frozen=True):
    """How much load there is: at most so many outside tasks are unfinished at once."""

    plans_per_s: float
    workers: int
    unfinished: int = 200


class Load:
    """All clients together; `start` them, and `finish` them when the faults are over."""

    def __init__(self, caller: Caller, addresses: Mapping[int, str], pace: Pace, seed: int) -> None:
        self._caller = caller
        self._addresses = addresses
        self._pace = pace
        self._seed = seed
        self._tasks: list[asyncio.Task[None]] = []
        self._outstanding = 0
        self.answered: set[str] = set()
        """The owners that had their answer before they hung up."""
        self._over = asyncio.Event()

    def start(self) -> None:
        """Begin to submit, to work and to operate."""
        clients = [self._submit_plans(), self._operate(), self._retry_failed(), self._hang_up()]
        clients += [self._work(f"worker-{number}") for number in range(self._pace.workers)]
        self._tasks = [asyncio.create_task(client) for client in clients]

    async def finish(self, within_s: float) -> None:
        """No more plans; wait until the workers have done what is left, within a bound."""
        self._over.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._outstanding > 0:
                    self.complain()
                    await asyncio.sleep(RETRY_PAUSE_S)
        self.complain()

    async def stop(self) -> None:
        """End every client, whatever it is doing."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def complain(self) -> None:
        """Raise the error of a client that has ended by one."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    # -- the clients ------------------------------------------------------------------------------

    async def _submit_plans(self) -> None:
        dice = self._dice("plans")
        number = 0
        while not self._over.is_set():
            await asyncio.sleep(dice.expovariate(self._pace.plans_per_s))
            if self._outstanding >= self._pace.unfinished:
                continue
            number += 1
            plan = _plan(f"plan-{number}", dice)
            self._outstanding += sum(task["kind"] == "outside" for task in plan["tasks"])
            await self._until_answered(dice, lambda at, plan=plan: self._submit(at, plan))

    async def _work(self, owner: str) -> None:
        dice = self._dice(owner)
        life = 0
        while True:
            life += 1
            await self._live(f"{owner}-{life}", dice)

    async def _live(self, owner: str, dice: random.Random) -> None:
        """One life of a worker; it ends when the worker dies with a claim in its hands."""
        while True:
            instance = dice.choice(NUMBERS)
            wish = {"kinds": ["outside"], "limit": dice.choice((1, 1, 3)), "wait_s": 1}
            call, claims = await self._caller.claim(instance, owner, **wish)
            if call.status != httpx.codes.OK:
                await asyncio.sleep(RETRY_PAUSE_S)
            for claim in claims:
                if dice.random() < 0.02:
                    return
                await self._carry_out(claim, owner, dice)

    async def _carry_out(self, claim: Json, owner: str, dice: random.Random) -> None:
        held_until = time.monotonic() + LEASE_S
        said = {"output": {"by": owner}}
        chance = dice.random()
        if chance < 0.7:
            await self._own(claim, owner, "start", dice, held_until)
        if chance < 0.2:
            await asyncio.sleep(dice.uniform(0.1, 0.5))
            await self._own(claim, owner, "heartbeat", dice, held_until)
        if chance < 0.02:  # frozen for longer than its lease; it speaks again when it wakes
            await asyncio.sleep(LEASE_S * dice.uniform(1.1, 1.6))
        verb = "complete"
        if chance > 0.95:
            verb, said = "release", {"reason": "the worker is tired"}
        elif chance > 0.92:
            verb, said = "fail", {"error_type": "tool_error", "retry_in_s": 0.1}
        call = await self._own(claim, owner, verb, dice, held_until, **said)
        if verb == "complete" and call.status != httpx.codes.CONFLICT:
            self._outstanding -= 1
            if dice.random() < 0.1:  # as a worker does that did not receive the answer
                await self._own(claim, owner, verb, dice, held_until, **said)

    async def _operate(self) -> None:
        """Pause a plan on one instance and resume it at once on another."""
        dice = self._dice("operator")
        number = 0
        while not self._over.is_set():
            number += 1
            plan = {"id": f"operated-{number}", "tasks": [{"id": "t", "kind": "unclaimed"}]}
            submitted = await self._until_answered(
                dice, lambda at, plan=plan: self._submit(at, plan)
            )
            newest = submitted.sequence
            for verb in ("pause", "resume", "pause", "resume", "cancel"):
                call = await self._until_answered(
                    dice, lambda at, verb=verb, plan=plan: self._operate_on(at, verb, plan["id"])
                )
                newest = max(newest, call.sequence)
            await self._caller.read(dice.choice(NUMBERS), plan["id"], newest)
            await asyncio.sleep(0.2)

    async def _retry_failed(self) -> None:
        """Let a task fail for good, and let an operator retry it on another instance."""
        dice = self._dice("retries")
        number = 0
        while not self._over.is_set():
            number += 1
            plan_id, kind, owner = f"retried-{number}", f"retried-{number}", f"retrier-{number}"
            task = {"id": "t", "kind": kind, **AMPLE, "max_retries": 0}
            plan = {"id": plan_id, "tasks": [task]}
            await self._until_answered(dice, lambda at, plan=plan: self._submit(at, plan))
            claim = await self._claimed(kind, owner, dice)
            said = {"error_type": "tool_error", "retryable": False}
            call = await self._own(claim, owner, "fail", dice, time.monotonic() + LEASE_S, **said)
            if call.status == httpx.codes.OK:
                await self._until_answered(
                    dice, lambda at, plan_id=plan_id: self._retry(at, plan_id)
                )
                claim = await self._claimed(kind, owner, dice)
                await self._own(claim, owner, "complete", dice, time.monotonic() + LEASE_S)
            await asyncio.sleep(0.5)

    async def _claimed(self, kind: str, owner: str, dice: random.Random) -> Json:
        while True:
            _, claims = await self._caller.claim(
                dice.choice(NUMBERS), owner, kinds=[kind], wait_s=2
            )
            if claims:
                return claims[0]
            await asyncio.sleep(RETRY_PAUSE_S)

    async def _hang_up(self) -> None:
        """Ask for work, and hang up while the claim is on its way."""
        dice = self._dice("hang-ups")
        number = 0
        while not self._over.is_set():
            number += 1
            kind = f"hang-up-{number}"
            plan = {"id": kind, "tasks": [{"id": "t", "kind": kind, **AMPLE, "lease_s": 30}]}
            instance = dice.choice(NUMBERS)
            owner = f"{HANG_UP_OWNER}{number}"
            wait_s = dice.choice((0, 20))
            asker = Asker(self._addresses[instance], owner, kind, wait_s)
            submitting = asyncio.create_task(
                self._until_answered(dice, lambda at, plan=plan: self._submit(at, plan))
            )
            if not wait_s:
                await submitting
            with suppress(OSError):
                await asker.ask()
            await asyncio.sleep(dice.uniform(0.001, 0.03))
            if await asker.hang_up():
                self.answered.add(owner)
            await submitting
            await asyncio.sleep(0.5)

    # -- saying a thing until it is answered ------------------------------------------------------

    async def _until_answered(self, dice: random.Random, step: Step) -> Call:
        """Repeat ``step``, each time on an instance drawn by lot, until it is not a 503."""
        while True:
            call = await step(dice.choice(NUMBERS))
            if NO_ANSWER < call.status < httpx.codes.INTERNAL_SERVER_ERROR:
                return call
            await asyncio.sleep(RETRY_PAUSE_S)

    async def _own(
        self,
        claim: Json,
        owner: str,
        verb: str,
        dice: random.Random,
        held_until: float,
        **said: Any,
    ) -> Call:
        """One owner's write, repeated until it is answered or its lease is surely lost."""
        while True:
            call = await self._caller.own(dice.choice(NUMBERS), verb, claim, owner, **said)
            answered = NO_ANSWER < call.status < httpx.codes.INTERNAL_SERVER_ERROR
            if answered or time.monotonic() > held_until + LEASE_S:
                return call
            await asyncio.sleep(RETRY_PAUSE_S)

    async def _submit(self, instance: int, plan: Json) -> Call:
        return (await self._caller.submit(instance, plan))[0]

    async def _operate_on(self, instance: int, verb: str, plan_id: str) -> Call:
        return (await self._caller.operate(instance, verb, plan_id))[0]

    async def _retry(self, instance: int, plan_id: str) -> Call:
        return (await self._caller.retry(instance, plan_id, "t"))[0]

    def _dice(self, name: str) -> random.Random:
        return random.Random(f"{self._seed} {name}")


def _plan(plan_id: str, dice: random.Random) -> Json:
    """A start, some tasks beside each other and an end that waits for them; six run inside."""
    middle = [f"t{number}" for number in range(dice.randint(2, 4))]
    inside = [{"id": f"inside-{number}", "kind": "echo", **AMPLE} for number in range(6)]
    return {
        "id": plan_id,
        "context": {"password": PLAN_SECRET},
        "tasks": [
            {"id": "first", "kind": "outside", **AMPLE},
            *(
                {"id": task_id, "kind": "outside", "depends_on": ["first"], **AMPLE}
                for task_id in middle
            ),
            {"id": "last", "kind": "outside", "depends_on": middle, **AMPLE},
            *inside,
        ],
    }
