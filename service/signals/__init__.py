"""What operators see of the process: metrics, audit entries, traces, log lines."""
