"""Can the service be reached? What became of the question to the API, and whose process it is."""

from typing import Any, Literal

import msgspec

from service.ops.doctor.report import Examined, Finding, answered
from service.ops.doctor.sources.processes import FolderHolding
from service.runtime.data_folder import FolderHolder

ReachTrouble = Literal["refused", "silent", "forbidden", "error"]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The question to the API: ``trouble`` None when it answered.

    "refused" means that no process listens, "silent" that one does and does not answer.
    """

    url: str
    trouble: ReachTrouble | None
    detail: str
    took_s: float


def examine(asked: Asked, holding: FolderHolding | None, *, sources: int) -> Examined:
    """Answer the question; ``sources`` counts what else could be read instead of the API."""
    numbers = _numbers(asked, holding)
    if asked.trouble is None:
        says = f"{asked.url} answered in {asked.took_s:.2f} s"
        return answered("reach", says, numbers, [])
    if asked.trouble == "forbidden":
        return answered("reach", asked.detail, numbers, [_forbidden(asked, numbers)])
    if asked.trouble == "refused" and _serves_nothing(holding) and sources:
        says = "the instance has no role api or is still starting; its log and SQLite were read"
        return answered("reach", says, numbers, [])
    if not sources and asked.trouble != "silent":
        return answered("reach", "nothing could be reached", numbers, [_cannot_tell(asked)])
    if not sources and (holding is None or holding.state != "stopped"):
        return answered("reach", "nothing could be reached", numbers, [_cannot_tell(asked)])
    finding = _down(asked, holding, numbers)
    return answered("reach", finding.summary, numbers, [finding])


def _numbers(asked: Asked, holding: FolderHolding | None) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "url": asked.url,
        "answered": asked.trouble is None,
        "took_s": round(asked.took_s, 3),
        "detail": asked.detail,
    }
    if holding is not None and holding.trace is not None:
        holder = holding.trace.holder
        numbers |= {
            "data_folder_held": holding.trace.held,
            "instance": holder.instance_id if holder else None,
            "pid": holding.pid,
            "process": holding.state,
            "nats_pid": holding.nats_pid,
            "nats_process": holding.nats_state,
        }
    return numbers


def _holder(holding: FolderHolding | None) -> FolderHolder | None:
    return holding.trace.holder if holding and holding.trace else None


def _serves_nothing(holding: FolderHolding | None) -> bool:
    holder = _holder(holding)
    return bool(
        holding
        and holding.trace
        and holding.trace.held
        and holding.state == "running"
        and holder
        and not holder.http_url
    )


def _down(asked: Asked, holding: FolderHolding | None, numbers: dict[str, Any]) -> Finding:
    held = bool(holding and holding.trace and holding.trace.held)
    who = _who(holding)
    if holding is not None and held and holding.state == "stopped":
        return _finding(
            "ApiFrozen",
            f"{who} is stopped (SIGSTOP): its port is open and it does not answer",
            numbers,
            "Nothing is served, renewed or claimed there; its leases expire and other instances "
            "take them over. When it wakes up, what it still writes is refused.",
            f"kill -CONT {holding.pid}",
        )
    if asked.trouble == "silent" or held:
        pid = holding.pid if holding else None
        return _finding(
            "ApiFrozen",
            f"{who} does not answer at {asked.url}: {asked.detail}",
            numbers,
            "The process is there, and its API loop is held up, starved or cut off.",
            f"top -H -p {pid}" if pid else f"curl -m 5 -v '{asked.url}/healthz'",
        )
    gone = f"{who} is gone" if _holder(holding) else "no instance runs"
    return _finding(
        "ApiDown",
        f"no process listens at {asked.url}; {gone}",
        numbers,
        "Nothing is claimed or accepted through this address. Nothing acknowledged is lost: a "
        "started instance goes on from the log. An embedded nats-server ends with its instance.",
        f"holdfast serve --data-dir '{holding.data_dir}'" if holding else "holdfast serve",
    )


def _who(holding: FolderHolding | None) -> str:
    holder = _holder(holding)
    return f"process {holder.pid} ({holder.instance_id})" if holder else "the service"


def _finding(
    code: str, summary: str, evidence: dict[str, Any], meaning: str, command: str
) -> Finding:
    return Finding(
        code=code,
        question="reach",
        severity="critical",
        summary=summary,
        evidence=evidence,
        meaning=meaning,
        command=command,
    )


def _forbidden(asked: Asked, numbers: dict[str, Any]) -> Finding:
    return Finding(
        code="ApiForbidden",
        question="reach",
        severity="unknown",
        summary=f"{asked.url} refuses our request: {asked.detail}",
        evidence=numbers,
        meaning="The instance runs and wants a token with the role viewer.",
        command=f"holdfast doctor --url {asked.url} --token-file FILE",
    )


def _cannot_tell(asked: Asked) -> Finding:
    return Finding(
        code="CannotTell",
        question="reach",
        severity="unknown",
        summary=f"neither the API ({asked.url}: {asked.detail}), nor the log, nor SQLite answered",
        evidence={"url": asked.url, "detail": asked.detail},
        meaning="Either nothing runs, or doctor looks in the wrong place. Name the instance with "
        "--url, its data folder with --data-dir, or its log with --nats-url; or start one.",
        command="holdfast doctor --url http://HOST:PORT --data-dir DIR --nats-url nats://HOST:4222",
    )
