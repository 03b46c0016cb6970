"""A worker process: claims one task, waits, writes the result, and prints each answer.

Run as a process, so that it can be frozen as a process: it neither knows nor guesses that it was.
"""

import os
import sys
import time

import httpx
import msgspec

CLAIM_S = 20.0
ANSWER_S = 30.0
TOKEN = "DEMO_TOKEN"  # noqa: S105 - the name of a variable


class Told(msgspec.Struct, frozen=True):
    """One line of a worker's output: what it did, and the answer."""

    did: str
    status: int
    answer: msgspec.Raw


def work(url: str, owner: str, kind: str, lease_s: float, work_s: float) -> None:
    """Claim, work, complete."""
    token = os.environ.get(TOKEN)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(base_url=url, headers=headers, timeout=ANSWER_S) as client:
        wish = {"owner": owner, "kinds": [kind], "lease_s": lease_s, "wait_s": CLAIM_S}
        answer = client.post("/v1/claims", json=wish)
        _tell("claim", answer)
        for claim in answer.json()["claims"]:
            time.sleep(work_s)
            place = f"/v1/plans/{claim['plan_id']}/tasks/{claim['task_id']}"
            said = {"owner": owner, "attempt": claim["attempt"], "output": {"by": owner}}
            _tell("complete", client.post(f"{place}/complete", json=said))


def _tell(did: str, answer: httpx.Response) -> None:
    told = Told(did, answer.status_code, msgspec.Raw(answer.content))
    sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    work(*sys.argv[1:4], lease_s=float(sys.argv[4]), work_s=float(sys.argv[5]))
