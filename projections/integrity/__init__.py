"""Checks of the read models: rows against the log, and whether SQLite takes writes."""
