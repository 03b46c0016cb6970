"""A cluster under faults keeps every promise: short in `make test`, long in `make test-all`."""

from pathlib import Path

import pytest

from tests.cluster.campaign import Form, run_campaign
from tests.cluster.checker import told, violations
from tests.cluster.faults import LONG, SHORT
from tests.cluster.faults_table import row, write_page
from tests.cluster.work import Pace

pytestmark = pytest.mark.faults

SHORT_FORM = Form(SHORT, Pace(plans_per_s=2, workers=6), calm_s=3, readers=6)
LONG_FORM = Form(LONG, Pace(plans_per_s=6, workers=16), calm_s=3, readers=12, facts=100_000)
LONG_S = 60 * 60


@pytest.mark.timeout(300)
async def test_a_cluster_keeps_its_promises_under_a_few_faults(
    tmp_path: Path, *, long_faults: bool
) -> None:
    if long_faults:
        pytest.skip("the long form contains these faults")
    await _holds(tmp_path, SHORT_FORM)


@pytest.mark.timeout(LONG_S)
async def test_a_cluster_keeps_its_promises_under_forty_faults(
    tmp_path: Path, *, long_faults: bool
) -> None:
    if not long_faults:
        pytest.skip("takes 25 minutes: `make test-all`")
    await _holds(tmp_path, LONG_FORM, keep=True)


async def _holds(folder: Path, form: Form, *, keep: bool = False) -> None:
    history = await run_campaign(folder, form)
    found = violations(history)
    print(*(row(fault, history) for fault in history.faults), sep="\n")  # noqa: T201
    if keep:
        write_page(history, len(found))
    assert not found, told(found, history)
