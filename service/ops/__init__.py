"""What an operator works with: alert rules, dashboards, the runbook and the table of metrics.

`python -m service.ops` writes anew what is drawn from data: dashboards/ and METRICS.md.
"""
