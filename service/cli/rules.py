"""`holdfast rules`: prints the alert rules for Prometheus."""

from collections.abc import Callable

from service.cli.client import OK
from service.cli.options import SETTINGS_HELP, command, with_settings
from service.ops import RULES
from service.ops.doctor.report import RUNBOOK
from service.settings.config import Settings


@command(
    "rules",
    "print the alert rules for Prometheus, with the address of your runbook",
    more=f"{SETTINGS_HELP}\n\nobservability.runbook_url is where you publish "
    "service/ops/RUNBOOK.md; without it\nthe rules name the file.",
    examples="holdfast rules > /etc/prometheus/holdfast.yaml",
)
@with_settings
def rules(read: Callable[[], Settings]) -> int:
    """Print the rules; answers the exit code."""
    url = read().observability.runbook_url or RUNBOOK
    print(RULES.read_text(encoding="utf-8").replace(f" {RUNBOOK}#", f" {url}#"), end="")
    return OK
