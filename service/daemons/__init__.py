"""The housekeeping that runs on a clock: each daemon is one step, repeated on isolated threads."""
