"""What the Grafana dashboards in `service/ops/dashboards/` show, and what draws their JSON."""
