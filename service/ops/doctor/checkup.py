"""A check-up from outside: asks the API and sends a canary, or reads the log and SQLite itself.

Every part has a time limit, and all of them together end within `LONGEST_S`, whatever hangs.
"""

import asyncio
import time
from pathlib import Path

import httpx
import msgspec

from projections.read_models.views import moment
from service.ops.doctor.diagnosis import diagnose
from service.ops.doctor.evidence import Canary
from service.ops.doctor.parts import Parts
from service.ops.doctor.questions import event_streams, reach
from service.ops.doctor.questions.reach import Asked
from service.ops.doctor.report import (
    Examined,
    Finding,
    Report,
    answered,
    cannot_tell,
    joined,
    reported,
)
from service.ops.doctor.sources.canary import log_witness, prove_whole
from service.ops.doctor.sources.offline import OfflineEvidence, Places
from service.ops.doctor.sources.processes import FolderHolding, holding
from service.signals.metrics.catalogue import CATALOGUE
from streams.jetstream.access import URL_ALONE, Credentials
from streams.jetstream.read_only import Inspection
from streams.jetstream.servers import without_password
from streams.json_values import UNREADABLE

LONGEST_S = 14.0
API_S = 4.0
CANARY_S = 6.0
METRICS_S = 3.0
WITNESS_S = 2.0
FORBIDDEN = (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)

_decode_report = msgspec.json.Decoder(Report).decode


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked at; ``data_dir`` None and ``nats_url`` "" when they are another machine's."""

    url: str
    token: str | None
    data_dir: Path | None
    database: Path | None
    nats_url: str
    access: Credentials = URL_ALONE

    def connect(self) -> httpx.AsyncClient:
        """A client whose requests go to the API."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=API_S)


class CheckUp:
    """One check-up. `run` answers the report; `interrupted` one of what is known so far."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._shown_url = without_password(target.url)
        self._parts = Parts()
        self._holding: FolderHolding | None = None

    async def run(self) -> Report:
        """Look at everything."""
        target = self._target
        if target.data_dir is not None:
            self._holding = await asyncio.to_thread(holding, target.data_dir)
        async with target.connect() as client:
            asked, report = await self._ask(client)
            if report is None:
                return await self._offline(asked)
            canary, metrics = await asyncio.gather(self._canary(client), self._metrics(client))
        return self._joined(report, asked, canary, metrics)

    def interrupted(self) -> Report:
        """Something would not even be cancelled: what it was, and what had been seen."""
        names = ", ".join(self._parts.under_way) or "an unnamed part"
        examined = cannot_tell("reach", f"{names} did not end within {LONGEST_S:g} s")
        return reported(
            [examined], at=moment(time.time()), instance="", window_s=None, parts=self._parts.done
        )

    # -- the API ----------------------------------------------------------------------------

    async def _ask(self, client: httpx.AsyncClient) -> tuple[Asked, Report | None]:
        began = time.monotonic()
        answer = await self._parts.take("api", API_S + 1, lambda: client.get("/v1/ops/doctor"))
        took_s = time.monotonic() - began

        def asked(trouble: reach.ReachTrouble | None, detail: str) -> Asked:
            return Asked(url=self._shown_url, trouble=trouble, detail=detail, took_s=took_s)

        match answer:
            case httpx.Response() if answer.is_success:
                try:
                    return asked(None, ""), _decode_report(answer.content)
                except UNREADABLE as error:
                    return asked("error", f"this is no Holdfast of our version: {error}"), None
            case httpx.Response() if answer.status_code in FORBIDDEN:
                return asked("forbidden", f"it answered {answer.status_code}"), None
            case httpx.Response():
                return asked("error", f"it answered {answer.status_code}"), None
            case httpx.ConnectError() | httpx.ConnectTimeout():
                return asked("refused", str(answer) or type(answer).__name__), None
            case httpx.TimeoutException() | TimeoutError():
                return asked("silent", f"no answer within {API_S:g} s"), None
            case _:
                return asked("error", str(answer) or type(answer).__name__), None

    async def _canary(self, client: httpx.AsyncClient) -> Examined:
        inspection = await self._witness()
        witness = log_witness(inspection.log) if inspection else None
        called = "the log" if inspection else "a second replay"
        try:
            proved = await self._parts.take(
                "canary", CANARY_S, lambda: prove_whole(client, witness, called)
            )
        finally:
            if inspection is not None:
                await inspection.close()
        if isinstance(proved, Exception):
            proved = Canary(witness=called, failed=self._parts.of("canary").detail)
        return event_streams.examine_canary(proved, self._shown_url)

    async def _witness(self) -> Inspection | None:
        url, access = self._target.nats_url, self._target.access
        if not url:
            return None
        opened = await self._parts.take(
            "log", 2 * WITNESS_S, lambda: Inspection.open(url, timeout_s=WITNESS_S, access=access)
        )
        return opened if isinstance(opened, Inspection) else None

    async def _metrics(self, client: httpx.AsyncClient) -> Examined | None:
        answer = await self._parts.take("metrics", METRICS_S, lambda: client.get("/metrics"))
        declared = {metric.prometheus_name.removesuffix("_total") for metric in CATALOGUE.values()}
        if isinstance(answer, httpx.Response) and answer.is_success:
            shown = {line.split()[2] for line in answer.text.splitlines() if line[:6] == "# TYPE"}
            missing = sorted(declared - {name.removesuffix("_total") for name in shown})
            if not missing:
                return None
            return _metrics_missing(self._shown_url, f"{len(missing)} are not shown", missing)
        detail = self._parts.of("metrics").detail or f"it answered {answer}"
        return _metrics_missing(self._shown_url, detail, [])

    def _joined(
        self, report: Report, asked: Asked, canary: Examined, metrics: Examined | None
    ) -> Report:
        """The instance's own report with what was seen from outside."""
        told = [reach.examine(asked, self._holding, sources=1), canary]
        told += [metrics] if metrics is not None else []
        return joined(report, told, self._parts.done)

    # -- without the API --------------------------------------------------------------------

    async def _offline(self, asked: Asked) -> Report:
        target = self._target
        places = Places(
            nats_url=target.nats_url,
            access=target.access,
            database=target.database,
            api_url=self._shown_url,
            stopped_nats_pid=self._holding.stopped_nats_pid if self._holding else None,
        )
        trace = self._holding.trace if self._holding else None
        holder = trace.holder if trace else None
        instance = holder.instance_id if holder else ""
        evidence = await OfflineEvidence(places, self._parts).evidence(instance)
        parts = self._parts.done
        sources = sum(part.state == "answered" and part.name in _SOURCES for part in parts)
        told = reach.examine(asked, self._holding, sources=sources)
        if evidence is None:
            at = moment(time.time())
            return reported([told], at=at, instance=instance, window_s=None, parts=parts)
        return diagnose(evidence, beside=[told], parts=parts)


_SOURCES = ("log", "database")


def _metrics_missing(url: str, detail: str, missing: list[str]) -> Examined:
    finding = Finding(
        code="MetricsMissing",
        question="internals",
        severity="warning",
        summary=f"metrics cannot be had: {detail}",
        evidence={"missing": missing[:20]},
        meaning="Alerts that look at them are blind, and silent.",
        command=f"curl -s '{url}/metrics' | head",
        alert="MetricsMissing",
    )
    return answered("internals", f"metrics: {detail}", {"missing": len(missing)}, [finding])
