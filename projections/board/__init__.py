"""The board: the in-memory projection on which claims and guards are decided."""
