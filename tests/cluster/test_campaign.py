"""A cluster under faults keeps every promise: short in `make test`, long in `make test-all`."""

from pathlib import Path

import pytest

from tests.cluster.campaign import Form, run_campaign
from tests.cluster.checker import told, violations
from tests.cluster.faults import SHORT
from tests.cluster.work import Pace

pytestmark = pytest.mark.faults

SHORT_FORM = Form(SHORT, Pace(plans_per_s=2, workers=6), calm_s=3, readers=6)


@pytest.mark.timeout(300)
async def test_the_short_form_shows_no_violation(tmp_path: Path) -> None:
    history = await run_campaign(tmp_path, SHORT_FORM)
    found = violations(history)
    assert not found, told(found, history)
