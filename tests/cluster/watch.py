"""What an operator sees of each instance meanwhile: readiness, the doctor, a write now and then.

A canary write goes to every instance several times a second, so that the time without an
acknowledged write is known to a fraction of a second.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import httpx

from service.ops.doctor.checkup import API_S
from tests.cluster.caller import Caller
from tests.cluster.farm import Farm
from tests.cluster.record import NO_ANSWER, Call, Diagnosis, History, Json, Leadership, Readiness
from tests.scrape import Snapshot

READY_PERIOD_S = 0.25
READY_ANSWER_S = 2.0
DOCTOR_PERIOD_S = 1.0
SCRAPE_S = 10.0
WRITE_PERIOD_S = 0.4
SLOTS = 40  # canary plans per instance: so many writes may hang at once
LEADER_PERIOD_S = 0.25
LATENESS_PERIOD_S = 0.05
# What an instance says of a node or a clock that stops nothing.
NOTICES = frozenset({"ReplicaBehind", "ClocksDiffer"})
WON, LOST = "agent_task_claim_success_total", "agent_task_claim_conflict_total"


def canary(instance: int) -> str:
    """What the ids of this instance's canary plans begin with."""
    return f"canary-{instance}-"


def is_canary(call: Call) -> bool:
    """Whether this is a canary write of the instance that was asked."""
    return call.plan_id.startswith(canary(call.instance)) and call.verb in ("pause", "resume")


class Watch:
    """Asks every instance, until `stop`."""

    def __init__(self, caller: Caller, farm: Farm, history: History) -> None:
        self.history = history
        self.lateness_s = 0.0
        """By how much this process came too late since it was last set to zero."""
        self._caller = caller
        self._addresses = farm.addresses
        self._cluster = farm.cluster
        self._links = farm.links
        self._claims: dict[int, dict[str, int]] = {}
        self._client = httpx.AsyncClient(timeout=READY_ANSWER_S)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Submit the canary plans, and begin to ask; all instances are ready."""
        await asyncio.gather(*map(self._submit_canaries, self._addresses))
        lone = (self._feel_lateness(), self._ask_leaders())
        self._tasks = [asyncio.create_task(loop) for loop in lone]
        for instance in self._addresses:
            loops = (
                _repeat(READY_PERIOD_S, self._ask_readiness, instance),
                _repeat(DOCTOR_PERIOD_S, self._ask_doctor, instance),
                self._write(instance),
            )
            self._tasks += [asyncio.create_task(loop) for loop in loops]

    async def stop(self) -> None:
        """Ask no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    def complain(self) -> None:
        """Raise the error of a loop that has ended by one."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def claims(self) -> tuple[int, int]:
        """The claims won and lost on all instances since this was asked last."""
        before, self._claims = self._claims, {}
        grown: Counter[str] = Counter()
        for instance, address in self._addresses.items():
            was = self._claims[instance] = before.get(instance, {})
            try:
                answer = await self._client.get(f"{address}/metrics", timeout=SCRAPE_S)
            except httpx.TransportError:
                continue  # it has ended by itself, which is recorded elsewhere
            samples = Snapshot(answer.text)
            self._claims[instance] = now = {name: round(samples.sum(name)) for name in (WON, LOST)}
            for name, count in now.items():
                # A count that is smaller than before has begun anew with its instance.
                grown[name] += count - was.get(name, 0) if count >= was.get(name, 0) else count
        return grown[WON], grown[LOST]

    async def ready(self, instance: int) -> bool:
        """Whether this instance is ready now."""
        status, _ = await self._get(instance, "/readyz", READY_ANSWER_S)
        return status == httpx.codes.OK

    def acknowledged_since(self, instance: int, since: float) -> bool:
        """Whether this instance has acknowledged a canary write that was asked after ``since``."""
        for call in reversed(self.history.calls):
            if call.answered_at < since:
                return False
            good = call.status == httpx.codes.OK and call.asked_at >= since
            if good and call.instance == instance and is_canary(call):
                return True
        return False

    async def names_nothing(self, since: float) -> bool:
        """Whether no newest word of an instance, asked after ``since``, names a node or a clock."""
        said = {each.instance: each for each in self.history.readiness if each.at >= since}
        found = {each.instance: each for each in self.history.diagnoses if each.at >= since}
        return (
            len(said) == len(found) == len(self._addresses)
            and not any(each.warnings for each in said.values())
            and not any(NOTICES.intersection(each.codes) for each in found.values())
        )

    async def _submit_canaries(self, instance: int) -> None:
        for slot in range(SLOTS):
            plan = {"id": f"{canary(instance)}{slot}", "tasks": [{"id": "t", "kind": "unclaimed"}]}
            call, _ = await self._caller.submit(instance, plan)
            assert call.status == httpx.codes.CREATED, call

    async def _write(self, instance: int) -> None:
        free = list(range(SLOTS))
        verbs = dict.fromkeys(free, "pause")
        async with asyncio.TaskGroup() as group:
            while True:
                if free:
                    group.create_task(self._toggle(instance, free.pop(0), verbs, free))
                await asyncio.sleep(WRITE_PERIOD_S)

    async def _toggle(
        self, instance: int, slot: int, verbs: dict[int, str], free: list[int]
    ) -> None:
        plan_id = f"{canary(instance)}{slot}"
        call, _ = await self._caller.operate(instance, verbs[slot], plan_id)
        if call.status == httpx.codes.OK:
            verbs[slot] = "resume" if verbs[slot] == "pause" else "pause"
        free.append(slot)

    async def _ask_readiness(self, instance: int) -> None:
        asked_at = time.time()
        status, answer = await self._get(instance, "/readyz", READY_ANSWER_S)
        seen = {check["name"]: check["detail"] for check in answer.get("checks", ())}
        readiness = Readiness(
            instance,
            asked_at,
            status,
            failing=tuple(answer.get("failing", ())),
            warnings={name: seen[name] for name in answer.get("warnings", ())},
        )
        self.history.readiness.append(readiness)

    async def _ask_doctor(self, instance: int) -> None:
        status, answer = await self._get(instance, "/v1/ops/doctor", API_S)
        findings = answer.get("findings", ())
        late = [each for found in findings for each in found["evidence"].get("replicas", ())]
        diagnosis = Diagnosis(
            instance,
            time.time(),
            status,
            codes=tuple(finding["code"] for finding in findings),
            nodes=tuple(each["node"] for each in late),
        )
        self.history.diagnoses.append(diagnosis)

    async def _get(self, instance: int, path: str, within_s: float) -> tuple[int, Json]:
        """The answer's status and body; without one what `holdfast doctor` finds then."""
        try:
            answer = await self._client.get(f"{self._addresses[instance]}{path}", timeout=within_s)
            return answer.status_code, answer.json()
        except httpx.TimeoutException:
            return NO_ANSWER, {"findings": [{"code": "ApiFrozen", "evidence": {}}]}
        except httpx.TransportError:
            return NO_ANSWER, {"findings": [{"code": "ApiDown", "evidence": {}}]}

    async def _ask_leaders(self) -> None:
        while True:
            at = time.time()
            seen = await self._cluster.leaders()
            connected = {number: self._links.nodes_of(number) for number in self._addresses}
            self.history.leaderships.append(Leadership(at, seen, connected))
            await asyncio.sleep(LEADER_PERIOD_S)

    async def _feel_lateness(self) -> None:
        """A machine that is busy with other work makes everything late; that is no fault."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(LATENESS_PERIOD_S)
            late_s = time.monotonic() - before - LATENESS_PERIOD_S
            self.lateness_s = max(self.lateness_s, late_s)


async def _repeat(period_s: float, ask: Callable[[int], Awaitable[None]], instance: int) -> None:
    while True:
        await ask(instance)
        await asyncio.sleep(period_s)
