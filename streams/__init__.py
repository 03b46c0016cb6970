"""Commands, events and the log: how facts are decided, written and read again."""
