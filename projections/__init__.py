"""The views: each is derived from the log, and can be deleted and rebuilt."""
