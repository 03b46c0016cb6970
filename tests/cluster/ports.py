"""The numbers of the nodes and instances, and where they listen."""

NUMBERS = (1, 2, 3)
HOST = "127.0.0.1"
