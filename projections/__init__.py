"""What is true now: every view here is derived from the log and can be thrown away and rebuilt."""
