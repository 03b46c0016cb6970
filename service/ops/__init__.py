"""What an operator works with: alert rules, dashboards, the runbook and the table of metrics.

`python -m service.ops` writes what is drawn from data: dashboards/ and METRICS.md.
"""

from pathlib import Path

RULES = Path(__file__).with_name("rules.yaml")
