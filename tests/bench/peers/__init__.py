"""Other task queues beside Holdfast, in one run: `make bench-peers`."""
