"""The command line of Holdfast: one module per command that does more than call another."""
