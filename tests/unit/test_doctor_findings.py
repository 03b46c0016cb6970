"""Each finding is made on its evidence, and not on the healthy near-miss beside it."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from service.ops.doctor.diagnosis import diagnose
from service.ops.doctor.evidence import Canary, Evidence
from service.ops.doctor.questions import event_streams
from service.ops.doctor.report import ASKED, EXIT_CODES, Severity, worst
from tests.unit.doctor_cases import CASES, LATE, kind_waits, load, log_is, machine, overrun, refused
from tests.unit.doctor_evidence import (
    WELL,
    expired,
    found,
    stale,
    well,
    window,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("code", "severity", "sick", "near_miss"), CASES)
def test_a_finding_is_made_on_its_evidence_and_not_on_the_near_miss(
    code: str, severity: Severity, sick: Evidence, near_miss: Evidence
) -> None:
    assert found(sick)[code].severity == severity
    assert set(found(sick)) == {code}
    assert found(near_miss) == {}


@pytest.mark.parametrize("evidence", [sick for _, _, sick, _ in CASES])
def test_every_finding_says_what_it_means_and_what_to_run(evidence: Evidence) -> None:
    for finding in found(evidence).values():
        assert finding.evidence
        assert finding.meaning.endswith(".")
        assert "None" not in finding.summary + finding.command
        assert (finding.alert is None) == (finding.runbook is None)
        if finding.runbook and finding.alert:
            assert finding.runbook == f"service/ops/RUNBOOK.md#{finding.alert.lower()}"


@pytest.mark.parametrize(
    ("evidence", "stream"),
    [
        (machine(agent__log__append__error__total={"full": 1.0}), "blue-PLANS"),
        (log_is(missing="it begins at 9", first=9), "blue-PLANS"),
        (machine(agent__audit__dropped__total={"queue_full": 1.0}), "blue-AUDIT"),
        (log_is(late_replicas=(LATE,)), "blue-PLANS"),
    ],
)
def test_a_finding_names_the_stream_as_the_server_has_it(evidence: Evidence, stream: str) -> None:
    assert evidence.machine is not None
    log = replace(evidence.machine.log, stream="blue-PLANS", audit_stream="blue-AUDIT")
    (finding,) = found(replace(evidence, machine=replace(evidence.machine, log=log))).values()
    said = finding.summary + finding.meaning + finding.command
    assert stream in said
    assert not re.search(r"(?<!blue-)\b(PLANS|AUDIT)\b", said)


def test_every_alert_that_a_finding_names_exists_and_no_other_name_is_used_for_its_trouble() -> (
    None
):
    rules = (ROOT / "service/ops/rules.yaml").read_text()
    alerts = set(re.findall(r"- alert: (\w+)", rules))
    findings = [each for _, _, sick, _ in CASES for each in found(sick).values()]
    assert {each.alert for each in findings if each.alert} <= alerts
    assert all(each.alert == each.code for each in findings if each.code in alerts)
    # What only a look from outside finds is missing here.
    assert alerts - {each.code for each in findings} == {"MetricsMissing"}


def test_when_all_is_well_every_question_is_answered_with_its_numbers() -> None:
    report = diagnose(WELL)
    assert (report.status, report.exit_code, report.findings) == ("healthy", 0, [])
    assert [answer.question for answer in report.answers] == [
        question for question in ASKED if question != "reach"
    ]
    assert all(answer.numbers and answer.status == "healthy" for answer in report.answers)


def test_a_question_without_evidence_is_unknown_and_says_why() -> None:
    blind = well(leases=None, why_not="nobody answers")
    report = diagnose(blind)
    assert (report.status, report.exit_code) == ("unknown", 3)
    (leases,) = (answer for answer in report.answers if answer.question == "leases")
    assert leases.says == "cannot tell: nobody answers"


def test_what_is_known_to_be_wrong_outweighs_what_is_not_known() -> None:
    sick = well("leases", expired=(expired(9),), expired_count=1)
    assert diagnose(replace(sick, load=None)).status == "warning"
    assert diagnose(replace(sick, machine=log_is(answers=False).machine)).status == "critical"


def test_the_worst_finding_stands_first() -> None:
    sick = well("leases", expired=(expired(9),), expired_count=1)
    sick = replace(sick, machine=log_is(answers=False, detail="gone").machine)
    assert [each.severity for each in diagnose(sick).findings] == ["critical", "warning"]


@pytest.mark.parametrize(("principal", "named"), [(None, False), ("w1", False), ("gpu", True)])
def test_a_stale_write_names_its_principal_where_the_owner_has_another_name(
    principal: str | None, *, named: bool
) -> None:
    finding = found(refused((stale(principal=principal),)))["StaleWriters"]
    assert ("(written by the principal gpu)" in finding.summary) == named
    assert finding.evidence["writes"][0]["principal"] == principal


def test_a_stale_writer_is_reported_with_both_owners_attempts_and_claims() -> None:
    (write,) = found(refused((stale(),)))["StaleWriters"].evidence["writes"]
    assert (write["old_owner"], write["old_attempt"], write["old_claim_sequence"]) == ("w1", 1, 3)
    assert (write["new_owner"], write["new_attempt"], write["new_claim_sequence"]) == ("w2", 2, 5)


def test_an_expired_lease_is_reported_with_owner_age_and_last_heartbeat() -> None:
    evidence = well("leases", expired=(expired(20),), expired_count=1)
    (lease,) = found(evidence)["LeasesExpired"].evidence["leases"]
    assert (lease["owner"], lease["attempt"], lease["claim_sequence"]) == ("w1", 2, 7)
    assert (lease["expired_for_s"], lease["last_sequence"]) == (20.0, 9)
    assert lease["last_heartbeat_at"].endswith("Z")


def test_a_full_pool_should_scale_out_and_an_idle_one_lacks_workers() -> None:
    grew = load(10, 40, claimed=50, ended=50)
    assert grew.load is not None
    full = replace(grew, load=replace(grew.load, in_flight=8))
    assert "scale out" in found(full)["BacklogGrowing"].meaning
    assert "missing" in found(grew)["BacklogGrowing"].meaning


def test_a_late_replica_is_reported_with_its_server_since_when_and_how_far_behind() -> None:
    finding = found(log_is(late_replicas=(LATE,)))["ReplicaBehind"]
    assert "n3" in finding.summary
    (replica,) = finding.evidence["replicas"]
    assert (replica["node"], replica["for_s"], replica["lag"]) == ("n3", 12.3, 40)


@pytest.mark.parametrize(("ahead_s", "way"), [(600.0, "600 s ahead of"), (-60.0, "60 s behind")])
def test_a_clock_that_differs_is_reported_with_its_way(ahead_s: float, way: str) -> None:
    assert way in found(log_is(clock_ahead_s=ahead_s))["ClocksDiffer"].summary


CANARY = Canary(events=10, first=1, last=12, resumed_after=6, witness="the log itself", took_s=0.1)


@pytest.mark.parametrize(
    ("canary", "codes"),
    [
        (CANARY, []),
        (replace(CANARY, events=0), []),
        (replace(CANARY, broken="sequence 7 was skipped"), ["SseNotWhole"]),
        (replace(CANARY, failed="401"), ["SseCanaryFailed"]),
    ],
)
def test_a_canary_that_died_is_a_finding(canary: Canary, codes: list[str]) -> None:
    examined = event_streams.examine_canary(canary, WELL.url)
    assert [finding.code for finding in examined.findings] == codes


def test_statuses_are_ordered_and_have_the_exit_codes_of_the_contract() -> None:
    ordered = sorted(EXIT_CODES, key=["healthy", "unknown", "warning", "critical"].index)
    assert all(worst([better, worse]) == worse for better, worse in pairwise(ordered))
    assert EXIT_CODES == {"healthy": 0, "warning": 1, "critical": 2, "unknown": 3}


def test_threads_held_by_handlers_that_overrun_are_no_reason_to_scale_out() -> None:
    held = overrun(3, threads=4).load
    growing = load(10, 40, claimed=50, ended=50)
    assert held is not None
    assert growing.load is not None
    seen = replace(
        growing, load=replace(growing.load, overruns=held.overruns, threads=4, in_flight=4)
    )
    findings = {each.code: each for each in diagnose(seen).findings}
    assert set(findings) == {"HandlersOverrun", "BacklogGrowing"}
    assert "mine.crawl of p/t, for 12 s" in findings["HandlersOverrun"].summary
    for finding in findings.values():
        assert 'pool="process"' in finding.meaning
        assert "scale out" not in finding.meaning


def test_a_misspelt_kind_is_named_with_the_one_that_was_meant() -> None:
    (found,) = (
        each for each in diagnose(kind_waits()).findings if each.code == "KindWithoutWorker"
    )
    assert "'rendr'" in found.summary
    assert "Did you mean 'render'?" in found.meaning
    (far,) = (
        each
        for each in diagnose(kind_waits(kind="zzz")).findings
        if each.code == "KindWithoutWorker"
    )
    assert "Did you mean" not in far.meaning


REFUSED = "agent__http__token__refused__total"


@pytest.mark.parametrize(
    ("seen", "code", "severity"),
    [
        ({"open_paths": {"data": "read"}}, "OpenToOtherAccounts", "warning"),
        ({"open_paths": {"data": "write"}}, "OpenToOtherAccounts", "critical"),
        ({"log_takes_anyone": True}, "LogWithoutCredentials", "warning"),
        ({"through_proxy": 1}, "ProxyWithoutTokens", "warning"),
        ({"connections": 100, "busiest": ("192.0.2.1", 50)}, "BusyPeer", "warning"),
        ({"connections": 100, "busiest": ("192.0.2.1", 49)}, None, None),
        ({"connections": 101, "busiest": ("192.0.2.1", 50)}, None, None),
        ({"connections": 3, "busiest": ("192.0.2.1", 3)}, None, None),
        ({"window": window(300, **{REFUSED: 10})}, "TokensRefused", "warning"),
        ({"window": window(300, **{REFUSED: 9})}, None, None),
    ],
)
def test_what_is_open_to_others_is_found_and_its_near_miss_is_not(
    seen: dict[str, Any], code: str | None, severity: str | None
) -> None:
    findings = found(well("security", **seen))
    assert [*findings] == ([code] if code else [])
    if code:
        assert findings[code].severity == severity
        assert findings[code].command
