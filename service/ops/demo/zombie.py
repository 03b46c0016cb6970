"""The demonstration `zombie`: a worker is frozen past its lease, and its late write is refused.

Each step is printed as it happens, and each statement is checked where an operator would check it:
in the answer, the metrics, the audit trail and the doctor's findings.
"""

import secrets
import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpx

from service.ops.demo.stage import Stage, Worker

LEASE_S = 2.0
ZOMBIE_WORKS_S = 1.5  # long enough to be frozen meanwhile
RESCUER_WORKS_S = 0.3
HEAR_S = 25.0
SEE_S = 8.0
POLL_S = 0.2
METRIC = "agent.task.claimed_update.guard_reject.total"
OK, CONFLICT = 200, 409
RECLAIM = 2  # the attempt that takes over from the first

T = TypeVar("T")
Say = Callable[[str], None]
Json = dict[str, Any]


class Zombie:
    """One demonstration; `tell` answers what was not seen, nothing when all of it was."""

    def __init__(self, stage: Stage, client: httpx.Client, say: Say) -> None:
        self._stage = stage
        self._client = client
        self._say = say
        self._began = time.monotonic()
        self._not_seen: list[str] = []
        name = secrets.token_hex(3)
        # With tokens, an owner begins with the token's name.
        principal = self._get("/v1/session")["name"]
        prefix = "" if principal is None else f"{principal}/"
        self._plan_id = f"zombie-{name}"
        self._kind = f"zombie-demo-{name}"
        self._first, self._second = f"{prefix}sleeper-{name}", f"{prefix}rescuer-{name}"

    def tell(self) -> list[str]:
        """Play the story. Raises StageFailure and httpx.HTTPError when a prop breaks."""
        self._line(f"the service answers at {self._stage.url}")
        submitted = self._post("/v1/plans", self._plan())
        self._line(f"plan {self._plan_id} with one task, 'job'", submitted["sequence"])
        before = self._refused()
        zombie, lost = self._freeze_one()
        taken = self._let_another_finish()
        self._wake(zombie, lost)
        self._look_at_metric(before)
        self._look_at_audit()
        self._look_at_doctor(lost, taken)
        self._look_at_task()
        return self._not_seen

    # -- what happens -----------------------------------------------------------------------

    def _plan(self) -> Json:
        return {"id": self._plan_id, "tasks": [{"id": "job", "kind": self._kind}]}

    def _freeze_one(self) -> tuple[Worker, int]:
        """A worker claims and is frozen; answers it and the sequence of its claim."""
        zombie = self._stage.worker(self._first, self._kind, lease_s=LEASE_S, work_s=ZOMBIE_WORKS_S)
        claim = self._claimed(zombie)
        self._line(
            f"{self._first} (process {zombie.pid}) claims it as attempt {claim['attempt']}, "
            f"with a lease of {LEASE_S:g} s",
            claim["fencing_token"],
        )
        self._check(zombie.freeze(), f"process {zombie.pid} is frozen (SIGSTOP)")
        self._line("its lease goes on without it ...")
        return zombie, claim["fencing_token"]

    def _let_another_finish(self) -> int:
        """Another worker waits for the lease to end and does the work; answers its claim."""
        rescuer = self._stage.worker(self._second, self._kind, lease_s=15, work_s=RESCUER_WORKS_S)
        claim = self._claimed(rescuer)
        self._line(
            f"the lease is over: {self._second} (process {rescuer.pid}) claims it as attempt "
            f"{claim['attempt']}",
            claim["fencing_token"],
        )
        status, answer = rescuer.hear("complete", HEAR_S)
        told = f"{self._second} completes it: {status} {answer.get('status')}"
        self._check(claim["attempt"] == RECLAIM and status == OK, told, answer.get("sequence"))
        return int(claim["fencing_token"])

    def _wake(self, zombie: Worker, lost: int) -> None:
        """The first worker wakes up, believes that no time has passed, and writes."""
        self._line(f"{self._first} wakes up (SIGCONT) and writes its result, as of claim {lost}")
        zombie.wake()
        status, answer = zombie.hear("complete", HEAR_S)
        current: Json = answer.get("current") or {}
        refused = status == CONFLICT and answer.get("code") == "guard_reject"
        self._check(refused, f"the answer: {status} {answer.get('code')}: {answer.get('detail')}")
        names = current.get("attempt") == RECLAIM and current.get("owner") in (None, self._second)
        owner = current.get("owner") or f"no worker any more, {self._second} has finished"
        told = f"status {current.get('status')}, attempt {current.get('attempt')}, owner {owner}"
        self._check(names, f"it says how the task stands: {told}")

    def _claimed(self, worker: Worker) -> Json:
        status, answer = worker.hear("claim", HEAR_S)
        claims: list[Json] = answer.get("claims", [])
        if status != OK or not claims:
            raise httpx.RemoteProtocolError(f"{worker.name} was given nothing: {status} {answer}")
        return claims[0]

    # -- what is seen of it -----------------------------------------------------------------

    def _look_at_metric(self, before: float) -> None:
        after = self._until(lambda: self._refused() if self._refused() > before else None)
        shown = f'{METRIC.replace(".", "_")}{{op="complete"}}'
        seen = before + 1 if after is None else after
        told = f"the metric: {shown} {before:g} -> {'the same' if after is None else f'{seen:g}'}"
        self._check(after is not None, told)

    def _look_at_audit(self) -> None:
        path = f"/v1/audit?event=claimed_update_guard_reject&plan_id={self._plan_id}"
        entries = self._until(lambda: self._get(path)["items"])
        if not entries:
            self._check(False, "the audit trail: an entry about the refused write")  # noqa: FBT003
            return
        entry: Json = entries[0]
        expected: Json = entry["expected"] or {}
        actual: Json = entry["actual"] or {}
        told = (
            f"the audit trail: claimed_update_guard_reject, expected {_who(expected)}, "
            f"actual {_who(actual)} (AUDIT {entry['sequence']})"
        )
        owner = entry["owner"] or expected.get("owner")
        self._check(owner == self._first and actual.get("attempt") == RECLAIM, told)

    def _look_at_doctor(self, lost: int, taken: int) -> None:
        found = self._until(self._stale_write)
        if found is None:
            self._check(False, "the doctor: a finding StaleWriters about it")  # noqa: FBT003
            return
        finding, write = found
        whole = (
            (write["old_owner"], write["old_attempt"], write["old_claim_sequence"])
            == (self._first, 1, lost)
        ) and (
            (write["new_owner"], write["new_attempt"], write["new_claim_sequence"])
            == (self._second, RECLAIM, taken)
        )
        told = (
            f"the doctor: {finding['severity']} {finding['code']}: {write['old_owner']} attempt "
            f"{write['old_attempt']} (claim {write['old_claim_sequence']}) after "
            f"{write['new_owner']} attempt {write['new_attempt']} (claim "
            f"{write['new_claim_sequence']})"
        )
        self._check(whole, told)
        self._line(f"  it says: {finding['command']}")

    def _stale_write(self) -> tuple[Json, Json] | None:
        for finding in self._get("/v1/ops/doctor")["findings"]:
            if finding["code"] == "StaleWriters":
                for write in finding["evidence"].get("writes", []):
                    if write["plan_id"] == self._plan_id:
                        return finding, write
        return None

    def _look_at_task(self) -> None:
        task = self._get(f"/v1/plans/{self._plan_id}/tasks/job")
        attempts = [(each["attempt"], each["status"]) for each in task["executions"]]
        told = ", ".join(f"attempt {number} {status}" for number, status in attempts)
        kept = task["output"] == {"by": self._second}
        whole = kept and attempts == [(1, "lost"), (2, "completed")]
        self._check(whole, f"the result is {self._second}'s, untouched: {told}", task["sequence"])

    # -- how it is printed ---------------------------------------------------------------------

    def _line(self, text: str, sequence: int | None = None) -> None:
        place = "" if sequence is None else f"#{sequence}"
        self._say(f"{time.monotonic() - self._began:7.2f} s  {place:>5}  {text}")

    def _check(self, seen: bool, told: str, sequence: int | None = None) -> None:  # noqa: FBT001
        self._line(f"{'✓' if seen else '✗ NOT SEEN'} {told}", sequence)
        if not seen:
            self._not_seen.append(told)

    def _until(self, look: Callable[[], T | None]) -> T | None:
        """The first true answer within `SEE_S`; what is behind becomes visible in a moment."""
        deadline = time.monotonic() + SEE_S
        while not (seen := look()) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return seen or None

    def _refused(self) -> float:
        values: list[Json] = self._get(f"/actuator/metrics/{METRIC}")["values"]
        return sum(each["value"] for each in values if each["labels"].get("op") == "complete")

    def _get(self, path: str) -> Json:
        return self._answer(self._client.get(path))

    def _post(self, path: str, body: Json) -> Json:
        return self._answer(self._client.post(path, json=body))

    def _answer(self, answer: httpx.Response) -> Json:
        answer.raise_for_status()
        return answer.json()


def _who(holding: Json) -> str:
    return f"{holding.get('owner') or 'no worker'} attempt {holding.get('attempt')}"
