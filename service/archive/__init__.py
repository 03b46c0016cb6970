"""Facts outside the log: one plan's facts as lines of JSON, and the archive of forgotten plans."""
