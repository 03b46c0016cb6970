"""Where a doctor's evidence comes from: a running instance, NATS and SQLite, the event stream."""
