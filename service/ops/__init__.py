"""What an operator works with: alert rules, dashboards, the runbook and the table of metrics."""

from pathlib import Path

RULES = Path(__file__).with_name("rules.yaml")
