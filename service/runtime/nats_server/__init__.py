"""The embedded nats-server: a child process with the log in the data folder."""
